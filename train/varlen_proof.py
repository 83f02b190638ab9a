"""Attention over whole packs is used only after it gave what attention part by part gives, on this device."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kto_release.train.logprobs import branch_logprobs
from kto_release.train.same_function import GRADIENT_NOISE, noise
from kto_release.train.tree import Pack
from kto_release.train.varlen import take_whole_packs

SEED = 0
NO_KERNEL = (RuntimeError, NotImplementedError, ValueError, TypeError, ImportError)
"""What PyTorch says where a device, or the way that it was built, has no such kernel."""
# Shape suffixes: N branches of a pack.


def whole_pack_fault(
    model: nn.Module,
    pack: Pack,
    backward: Callable[[Tensor], None],
    sum_over_ranks: Callable[[Tensor], Tensor],
    precision: str,
) -> str | None:
    """Compare log-probabilities and gradients of a pack, take whole packs if they agree, and say why if they don't.

    Every rank calls this with a pack of its own, and all take the same.

    Args:
        model: prepared, in the mode of training.
        pack: on its device.
        backward: runs a backward pass; the gradients that it leaves are dropped.
        sum_over_ranks: of fp64 on the model's device.
        precision: bf16 or fp32, of the arithmetic.
    """
    take_whole_packs(model, False)
    fault = _difference(model, pack, backward, sum_over_ranks, precision)
    model.zero_grad(set_to_none=True)
    take_whole_packs(model, fault is None)
    return fault


def _difference(
    model: nn.Module,
    pack: Pack,
    backward: Callable[[Tensor], None],
    sum_over_ranks: Callable[[Tensor], Tensor],
    precision: str,
) -> str | None:
    device = pack.ids_T.device
    with _same_random_numbers(device):
        parts_N = branch_logprobs(model, pack)
        backward(parts_N.sum())
    size = _norm(model, sum_over_ranks, device)
    take_whole_packs(model, True)
    try:
        with _same_random_numbers(device):
            whole_N = branch_logprobs(model, pack)
            # The second gradient is taken off the first where that lies: no copy of all gradients.
            backward(-whole_N.sum())
    except torch.OutOfMemoryError:
        raise
    except NO_KERNEL as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    rest = _norm(model, sum_over_ranks, device)
    off_N = (whole_N.detach().double() - parts_N.detach().double()).abs()
    beyond = (off_N > noise(parts_N.detach(), precision)).any() | ~torch.isfinite(off_N).all()
    if bool(sum_over_ranks(beyond.double()[None])[0]):
        return f"whole packs give log-probabilities that differ by {float(off_N.max()):.4f} nats"
    if not rest <= GRADIENT_NOISE[precision] * size:
        return f"whole packs give a gradient that differs by {rest / size if size else rest:.1%} of its norm"
    return None


@contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """LoRA's dropout drops the same in both passes, and goes on afterwards as if there had been none."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        yield


def _norm(model: nn.Module, sum_over_ranks: Callable[[Tensor], Tensor], device: torch.device) -> float:
    total = torch.zeros(1, dtype=torch.float64, device=device)
    for parameter in model.parameters():
        gradient: Any = parameter.grad
        if gradient is not None:
            local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
            total += torch.linalg.vector_norm(local, dtype=torch.float64) ** 2
    return math.sqrt(float(sum_over_ranks(total)[0]))
