"""Loading a causal language model whole, or not at all: nothing is filled with random weights in silence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from kto_release.errors import ModelError

FAILURES = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    ImportError,
    StrictDataclassError,
    SafetensorError,
)
"""What transformers raises for a model that it can't make something of: a type that it does not know, values that no
configuration can have, tensors of other shapes, code or kernels that are not there."""

COMPUTED = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
"""Ends of names of tensors that old checkpoints hold and models compute by themselves."""
PREFIXES = {
    "_orig_mod.": "it was saved under torch.compile",
    "module.": "it was saved under data parallelism",
    "base_model.model.": "it was saved with PEFT's adapters",
}
SHOWN = 3


def load_whole(folder: Path, **options: Any) -> Any:
    """The causal language model in a folder, by transformers with these options.

    Raises `ModelError` where the weights do not fit the configuration: names that are missing, that nothing is made of,
    or that have another shape. What transformers raises by itself is left as it is.
    """
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    _check(found, folder.name)
    return model


def first_line(error: Exception) -> str:
    """What a library says, on one line; some of its errors say nothing but their kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _check(found: Mapping[str, Any], name: str) -> None:
    missing = sorted(found["missing_keys"])
    unexpected = sorted(key for key in found["unexpected_keys"] if not key.endswith(COMPUTED))
    reshaped = sorted(
        f"{key} ({_shape(had)} stored, {_shape(wants)} needed)" for key, had, wants in found["mismatched_keys"]
    )
    faults = [
        f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}"
        for kind, names in (("missing", missing), ("unknown", unexpected), ("of another shape", reshaped))
        if names
    ]
    if not faults:
        return
    prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in unexpected)), None)
    raise ModelError(
        f"the weights of {name!r} do not fit its configuration: {'; '.join(faults)}",
        expected="every tensor of the model under its own name, and no other",
        todo="fetch or save the model again"
        if prefix is None
        else f"save it without the prefix {prefix!r} ({PREFIXES[prefix]})",
    )


def _shape(shape: Any) -> str:
    return " x ".join(map(str, tuple(shape)))
