"""How much memory a device needs for training: an estimate from the model's shapes and the recipe."""

from typing import Any, NamedTuple

from kto_release.recipe import Recipe, TrainSection
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
    copies: float
    """Autocast's bf16 copies of weights that want gradients, kept until a forward pass ends."""
    buckets: float
    """Data parallelism's second set of gradients, in which it adds them up over the devices."""

    def total(self) -> float:
        """All of it."""
        return sum(self)


def estimate(config: Any, train: TrainSection, devices: Devices, *, bf16: bool, checkpointing: bool) -> Estimate:
    """The memory of one device. `config` is the model's transformers configuration.

    Weights, gradients and AdamW's two moments are fp32 (16 bytes a parameter in all); with LoRA the base has neither
    gradients nor moments, and is in bf16 where it computes in bf16 unsplit. Activations: with checkpointing one fp32
    input a layer, and one layer's inner values; without it, every layer's. What allocators and libraries keep for
    themselves comes on top.
    """
    parameters, layers, hidden, inner, vocabulary = _shapes(config)
    lora = train.lora
    trained = parameters
    if lora is not None:
        trained = layers * lora.rank * (8 * hidden + 3 * (hidden + inner))
    split = devices.shards > 1
    base = 4.0 * parameters
    if lora is not None:
        table = 4.0 * vocabulary * hidden
        base = 0.6 * parameters if lora.quantize else 2.0 * parameters + table if bf16 and not split else base
        base += 4.0 * trained
    tokens = train.tokens_per_pack
    width = 2 if bf16 else 4
    layer = tokens * (width * (6 * hidden + 3 * inner) + 4 * 4 * hidden)
    activations = tokens * hidden * 4 * layers + layer if checkpointing else layer * layers
    gathered = 2 * width * parameters / layers if split else 0.0  # one computes while the next one arrives
    return Estimate(
        weights=base / devices.shards + gathered,
        gradients=4.0 * trained / devices.shards,
        optimizer=8.0 * trained / devices.shards,
        activations=activations,
        logits=max(CHUNK_LOGITS, vocabulary) * 4 * 3,
        copies=2.0 * trained if bf16 and not split else 0.0,
        buckets=4.0 * trained if devices.processes > 1 and not split else 0.0,
    )


class Around(NamedTuple):
    """Bytes of a machine beside its devices."""

    host: float
    """Host memory while weights are loaded, of all processes of a machine."""
    disk_training: float
    """Of the run directory at most: models of all iterations, one more being written, and three checkpoints."""
    disk_after: float
    """Of the run directory at the end: a model of each iteration, and the last one as it is published."""


def around(config: Any, recipe: Recipe, devices: Devices) -> Around:
    """What a run needs beside its devices' memory. `config` is the model's transformers configuration."""
    parameters, layers, hidden, inner, _ = _shapes(config)
    lora, model = recipe.train.lora, 4.0 * parameters
    trained = parameters if lora is None else layers * lora.rank * (8 * hidden + 3 * (hidden + inner))
    after = (recipe.data.iterations + 0.5) * model
    copies = 1 if devices.main_only else devices.per_machine
    return Around(copies * model, (recipe.data.iterations + 1) * model + 3 * 12.0 * trained, after)


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
