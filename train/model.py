"""Models that training loads: the policy in fp32 or with adapters, and what makes one whole model of it again."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import torch

from kto_release.errors import ModelError
from kto_release.loading import FAILURES, first_line, load_whole
from kto_release.recipe import LoraSection, ModelSection
from kto_release.train.fits import check_unquantized, settle_generation, with_new_adapters
from kto_release.train.logprobs import teach_trees


def load_model(path: Path, model: ModelSection, *, quantize: str | None = None, precision: str = "fp32") -> Any:
    """A causal language model with fp32 weights that can compute prompt trees.

    Args:
        path: its folder.
        model: of the recipe.
        quantize: "4bit" for a frozen base in NF4.
        precision: bf16 or fp32, in which 4-bit weights compute.

    Raises `ModelError` where the folder holds none.
    """
    check_unquantized(path)
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": model.trust_remote_code}
    if quantize is not None:
        options["quantization_config"] = _four_bits(precision)
    try:
        loaded = load_whole(path, use_safetensors=True, **options)
    except FAILURES as error:
        raise ModelError(
            f"{path.name!r} can't be loaded as a causal language model: {first_line(error)}",
            expected="a transformers model with safetensors",
        ) from None
    settle_generation(loaded)
    teach_trees(loaded)
    return loaded


def _four_bits(precision: str) -> Any:
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "train.lora.quantize: 4bit needs bitsandbytes",
            todo="pip install bitsandbytes, or set train.lora.quantize to null",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
    )


def with_adapters(model: Any, lora: LoraSection, before: Path | None = None) -> Any:
    """The frozen model with adapters: those of the folder `before`, else new ones, which change nothing yet."""
    from peft import PeftModel, prepare_model_for_kbit_training

    if lora.quantize:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if before is not None:
        return PeftModel.from_pretrained(model, before, is_trainable=True)
    return with_new_adapters(model, lora)


def merge(part: Path, adapter: Path, base: Path, section: ModelSection, quantize: str | None) -> None:
    """Turn a folder with adapters into one with whole fp32 weights of `base`; the adapters go to `adapter`.

    With a 4-bit base, its weights are those that the 4 bits stand for: exactly the trained policy.
    """
    from peft import PeftModel

    shutil.rmtree(adapter, ignore_errors=True)
    part.replace(adapter)
    whole = load_model(base, section, quantize=quantize)
    if quantize is not None:
        whole = whole.dequantize()
    PeftModel.from_pretrained(whole, adapter).merge_and_unload().save_pretrained(part)
