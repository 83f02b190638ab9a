"""How much memory a device needs for training: an estimate from the model's shapes and the recipe."""

from typing import Any, NamedTuple

from kto_release.recipe import TrainSection
from kto_release.train.launch_file import Devices
from kto_release.train.logprobs import CHUNK_LOGITS

GIB = 2**30


class Estimate(NamedTuple):
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    def total(self) -> float:
        """All of it."""
        return sum(self)


def estimate(config: Any, train: TrainSection, devices: Devices, *, bf16: bool, checkpointing: bool) -> Estimate:
    """The memory of one device. `config` is the model's transformers configuration.

    Weights, gradients and AdamW's two moments are fp32 (16 bytes a parameter in all); with LoRA the base has neither
    gradients nor moments. Activations: with checkpointing one fp32 input a layer, and one layer's inner values; without
    it, every layer's. What allocators and libraries keep for themselves comes on top.
    """
    parameters, layers, hidden, inner, vocabulary = _shapes(config)
    lora = train.lora
    trained = parameters
    if lora is not None:
        trained = layers * lora.rank * (8 * hidden + 3 * (hidden + inner))
    base = (0.6 if lora and lora.quantize else 4.0) * parameters + (4.0 * trained if lora else 0.0)
    tokens = train.tokens_per_pack
    width = 2 if bf16 else 4
    layer = tokens * (width * (6 * hidden + 3 * inner) + 4 * 4 * hidden)
    activations = tokens * hidden * 4 * layers + layer if checkpointing else layer * layers
    gathered = parameters / layers * 4 if devices.shards > 1 else 0.0
    return Estimate(
        weights=base / devices.shards + gathered,
        gradients=4.0 * trained / devices.shards,
        optimizer=8.0 * trained / devices.shards,
        activations=activations,
        logits=max(CHUNK_LOGITS, vocabulary) * 4 * 3,
    )


def _shapes(config: Any) -> tuple[float, int, int, int, int]:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    return (
        float(parameters),
        config.num_hidden_layers,
        config.hidden_size,
        getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        config.vocab_size,
    )
