"""Where and in what precision a model computes: processes, device, autocast, memory."""

import contextlib
import ctypes
import sys
from typing import Any

import torch
from torch import nn

from kto_release.errors import ModelError
from kto_release.recipe import TrainSection

GIB = 2**30


def resolve_precision(train: TrainSection) -> str:
    """bf16 or fp32. Raises `ModelError` where bf16 is asked for and the hardware has none."""
    available = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if torch.cuda.is_available()
        else bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - there is no public question
    )
    if train.precision == "bf16" and not available:
        raise ModelError("this hardware has no bf16", todo="set train.precision to fp32, or auto")
    if train.precision == "auto":
        return "bf16" if available else "fp32"
    return train.precision


def process_state() -> Any:
    """Accelerate's view of this process among the others: rank, barriers, which one is the main process."""
    from accelerate import PartialState

    # Without a GPU accelerate starts gloo only where it is told that the CPU is meant.
    return PartialState(cpu=not torch.cuda.is_available())


def hardware() -> str:
    """The devices of this process's machine, for records."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{torch.get_num_threads()} x CPU core"


def keep_freed_memory() -> None:
    """On a CPU under glibc: keep freed tensors' memory for the next ones instead of giving it back to the system.

    Every pack allocates what the last one freed. Fetched anew, each page costs a fault: a fifth of the time of a
    forward and backward pass was measured. The peak grows by a few percent.
    """
    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)


def recomputes_activations(train: TrainSection) -> bool:
    """Whether activations are computed again in the backward pass: as the recipe says, else on a GPU only."""
    return torch.cuda.is_available() if train.gradient_checkpointing is None else train.gradient_checkpointing


def check_room_for_training(model: nn.Module, device: torch.device) -> None:
    """Raises `ModelError` where a GPU has no room for gradients and moments: before hours of reference passes."""
    if device.type == "cuda":
        check_room(model, torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


def check_room(model: nn.Module, room: int) -> None:
    """Raises `ModelError` where `room` bytes do not hold this rank's weights, gradients and AdamW's two moments."""
    held = needed = 0
    for parameter in model.parameters():
        data: Any = parameter.detach()
        local = data.to_local() if hasattr(data, "to_local") else data
        held += local.numel() * local.element_size()
        needed += local.numel() * 12 if parameter.requires_grad else 0
    if held + needed > room:
        raise ModelError(
            f"gradients and optimizer state need {needed / GIB:.1f} GiB beside {held / GIB:.1f} GiB of weights, and "
            f"this device has room for {room / GIB:.1f} GiB in all",
            todo="set train.lora, or split the training over more devices: --launch recipes/accelerate/fsdp2-8gpu.yaml",
        )


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bf16 arithmetic on fp32 weights, or none."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
