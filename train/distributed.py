"""What a launch may decide and what it may not: kinds of parallelism, and the precision that stays the recipe's."""

import os
import platform
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from kto_release import console
from kto_release.errors import RecipeError, RunError
from kto_release.train.launch_file import refuse_deepspeed
from kto_release.train.waiting import from_all, from_main

PRECISION = "ACCELERATE_MIXED_PRECISION"
SEEN_AFTER = 120.0
"""Seconds; network disks keep a folder's listing for 30 to 60."""
SPLIT_FILES = "pytorch_model_fsdp*"
"""Only FSDP's checkpoints hold such files."""


def _on(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")


def sharded() -> bool:
    """Whether the launch splits the weights over devices."""
    return _on("ACCELERATE_USE_FSDP")


def loads_on_main_only() -> bool:
    """Whether only the main process of each machine gets weights where a model is loaded."""
    return sharded() and _on("FSDP_CPU_RAM_EFFICIENT_LOADING")


def heed_launch(precision: str, *, quantized: bool = False) -> None:
    """Refuse launches that would compute something else, and let nothing but the recipe choose the precision.

    Raises `RecipeError` for DeepSpeed, FSDP1, compilation of the whole model, and 4-bit weights in shards.
    """
    if _on("ACCELERATE_USE_DEEPSPEED"):
        refuse_deepspeed()
    if sharded() and os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError("the launch configuration says FSDP version 1", expected="fsdp_config: {fsdp_version: 2}")
    if sharded() and quantized:
        refuse_quantized_shards()
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("no", ""):
        raise RecipeError("the launch configuration compiles the model (dynamo)", todo="remove dynamo_config from it")
    if _on("FSDP_ACTIVATION_CHECKPOINTING"):
        console.warn("the launch's fsdp_activation_checkpointing is not used: train.gradient_checkpointing is")
        os.environ["FSDP_ACTIVATION_CHECKPOINTING"] = "false"
    wanted = {"bf16": "bf16", "fp32": "no"}[precision]
    said = os.environ.get(PRECISION, wanted)
    if said not in (wanted, "no"):
        console.warn(f"the launch's mixed_precision: {said} is not used: the recipe's precision is {precision}")
    os.environ[PRECISION] = wanted


def refuse_quantized_shards() -> None:
    """Raises `RecipeError`."""
    raise RecipeError(
        "train.lora.quantize: 4bit under FSDP2: 4-bit weights are not split, so nothing would be saved",
        todo="set train.lora.quantize to null, or train on one device or by data parallelism",
    )


def one_device(args: Any) -> None:
    """Of several visible GPUs without a launch, use one; transformers would cut every pack in two."""
    if args.n_gpu > 1:
        others = ", ".join(f"cuda:{number}" for number in range(1, args.n_gpu))
        console.warn(f"cuda:0 is used; {others} are idle: `--launch recipes/accelerate/fsdp2-8gpu.yaml` uses them")
        args._n_gpu = 1  # noqa: SLF001 - as transformers itself does where a process has one device


def check_shared(state: Any, folder: Path) -> None:
    """Raises `RunError` on every rank where one of them does not see what the first one writes.

    Each would otherwise make its own tokens, checkpoints and models on its own machine.
    """
    if state.num_processes == 1:
        return
    nonce = folder / from_main(state, f".seen-by-all-{uuid4().hex[:12]}")
    if state.is_main_process:
        nonce.touch()
    until = time.monotonic() + SEEN_AFTER
    while not (seen := nonce.exists()) and time.monotonic() < until:
        time.sleep(0.1)
    blind = sorted({host for host, sees in from_all(state, (platform.node(), seen)) if not sees})
    if state.is_main_process:
        nonce.unlink()
    if blind:
        raise RunError(
            f"the run directory {str(folder)!r} is not the same folder on every machine: {', '.join(blind)} did not "
            "see what the first process wrote there",
            todo="give --runs a folder that all machines share",
        )


def keep_sums_exact(accelerator: Any, precision: str) -> None:
    """FSDP2 in bf16: arithmetic in bf16, gradients reduced in fp32, and what forward returns left as it is.

    Accelerate would reduce in bf16 and round the log-probabilities to bf16: to whole nats at a few hundred.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None or precision != "bf16":
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None
    )


def save_as(accelerator: Any, kind: str) -> None:
    """Let FSDP2 give state dicts in shards or whole: "SHARDED_STATE_DICT" or "FULL_STATE_DICT"."""
    plugin = accelerator.state.fsdp_plugin
    plugin.state_dict_config = plugin.optim_state_dict_config = None  # those of the other kind, which would stay
    plugin.set_state_dict_type(kind)


def check_kind(checkpoint: Path, accelerator: Any) -> None:
    """Raises `RunError` where a checkpoint of whole weights meets FSDP2, or one in shards meets another launch."""
    split = any(checkpoint.glob(SPLIT_FILES))
    if split != bool(accelerator.is_fsdp2):
        names = {True: "FSDP2", False: "one process or data parallelism"}
        raise RunError(
            f"{checkpoint.name} was written under {names[split]}, and this is {names[not split]}",
            todo=f"go on with the same kind of launch (any number of processes), or remove {str(checkpoint.parent)!r}",
        )
