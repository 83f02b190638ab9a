"""QLoRA: one 4-bit base for the whole run, the adapter carried on, and merged into what the 4 bits stand for."""

import numpy as np
import pytest
import torch
from feedback_files import write_recipe
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from kto_release.files import read_jsonl
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train

pytestmark = pytest.mark.slow

pytest.importorskip("bitsandbytes")


def policy(base, adapter, ids):
    """Logits of the 4-bit base with an adapter."""
    from peft import PeftModel

    bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=bits)
    with torch.no_grad():
        return PeftModel.from_pretrained(model, adapter).eval()(input_ids=ids).logits


def test_what_is_handed_over_is_what_was_trained(tmp_path, tiny_model):
    """The merged model of each iteration is the 4-bit base with that iteration's adapter, which begins as the last one's.

    Fails if the adapter is merged into the unquantised weights, if the next iteration quantises the merged model, or if
    it begins with a new adapter.
    """
    changes = {"train.lora": {"rank": 4, "quantize": "4bit"}, "train.precision": "fp32"}
    run = Run.open(load_recipe(write_recipe(tmp_path, tiny_model, **changes)), tmp_path / "runs")
    train(run)
    ids = torch.arange(5, 45)[None]
    for number in (1, 2):
        folder = run.iteration(number)
        merged = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(
                merged(input_ids=ids).logits, policy(tiny_model, folder / "adapter", ids), rtol=0, atol=1e-4
            )
        first = read_jsonl(folder / "metrics.jsonl")[0]
        assert first["kl/raw"] == pytest.approx(0, abs=1e-3)
    one, two = (load_file(run.iteration(n) / "adapter" / "adapter_model.safetensors") for n in (1, 2))
    moved = [float((two[name] - one[name]).norm() / one[name].norm()) for name in one if "lora_A" in name]
    assert 0 < np.mean(moved) < 0.2
