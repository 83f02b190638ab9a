"""Models that training loads: the policy in fp32 or with adapters, and what makes one whole model of it again."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from kto_release.errors import ModelError
from kto_release.recipe import LoraSection, ModelSection
from kto_release.train.attention import NAME
from kto_release.train.logprobs import branch_logprobs, teach_trees
from kto_release.train.tree import Branch, Tree, lay


def load_model(path: Path, model: ModelSection, *, quantize: str | None = None) -> Any:
    """A causal language model with fp32 weights that can compute prompt trees; `quantize`: "4bit" for a frozen base.

    Raises `ModelError` where the folder holds none.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": model.trust_remote_code}
    if quantize is not None:
        options["quantization_config"] = _four_bits()
    try:
        loaded = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path.name!r} can't be loaded as a causal language model: {str(error).splitlines()[0]}",
            expected="a transformers model with safetensors",
        ) from None
    loaded.config.use_cache = False
    teach_trees(loaded)
    return loaded


def _four_bits() -> Any:
    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available():
        raise ModelError("train.lora.quantize: 4bit needs a GPU", todo="set train.lora.quantize to null")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def with_adapters(model: Any, lora: LoraSection) -> Any:
    """The frozen model with new adapters, which change nothing until they are trained."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if lora.quantize:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
        ),
    )


def merge(part: Path, adapter: Path, base: Path, section: ModelSection) -> None:
    """Turn a folder with adapters into one with whole fp32 weights of `base`; the adapters go to `adapter`."""
    from peft import PeftModel

    shutil.rmtree(adapter, ignore_errors=True)
    part.replace(adapter)
    PeftModel.from_pretrained(load_model(base, section), adapter).merge_and_unload().save_pretrained(part)


@torch.no_grad()
def check_against_plain_forward(model: Any, ids: list[int], tolerance: float = 1e-3) -> None:
    """Compare our log-probability of a sequence with the model's own logits; both in the model's own precision.

    Finds models whose head does more than a matrix product (soft caps, scaled logits) or whose attention is not what
    `tree_attention` computes. Raises `ModelError` where they differ by more than `tolerance` nats per token.
    """
    device = next(model.parameters()).device
    half = len(ids) // 2
    sequence = np.array(ids, dtype=np.int32)
    pack = lay([Tree(sequence[:half], [Branch(sequence[half:], 0)])]).to(device)
    ours = float(branch_logprobs(model, pack)[0])
    model.set_attn_implementation("sdpa")
    logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0]
    model.set_attn_implementation(NAME)
    theirs = -float(
        cross_entropy(logits[half - 1 : -1].float(), torch.tensor(ids[half:], device=device), reduction="sum")
    )
    difference = abs(ours - theirs) / (len(ids) - half)
    if not difference <= tolerance:
        raise ModelError(
            f"{type(model).__name__} computes its log-probabilities in a way that prompt trees do not reproduce: "
            f"{ours:.4f} against {theirs:.4f} nats on {len(ids) - half} tokens",
            expected="a decoder with plain attention and a plain output head, such as Mistral, Llama, Qwen or SmolLM",
        )
