"""Another model's weights in the prepared policy for one pass: no second model, whatever splits the weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kto_release.train.device import process_state
from kto_release.train.waiting import together


@contextmanager
def holding(model: nn.Module, load: Callable[[], nn.Module], device: torch.device, *, main: bool) -> Iterator[None]:
    """The prepared `model` with the weights of what `load` gives; its own come back bit for bit.

    Adapters are kept, and switched off meanwhile. Every rank enters; only the main one loads, so that ranks whose
    loading was left to the main process get the weights too.

    Args:
        model: in the wrapping of its rank: DDP, FSDP2, PEFT or none.
        load: gives a model of the same shape in fp32.
        device: of this rank.
        main: whether this rank is the first.
    """
    _reshard(model)
    kept = {name: _local(value).to("cpu", copy=True) for name, value in _base(model)}
    with together(process_state()):
        other = dict(load().named_parameters()) if main else {}
    adapted = next((m for m in model.modules() if hasattr(m, "disable_adapter")), None)
    try:
        for name, value in _base(model):
            _fill(value, other.pop(_plain(name)) if main else None, device)
        if adapted is None:
            yield
        else:
            with adapted.disable_adapter():  # type: ignore[operator]
                yield
    finally:
        _reshard(model)
        for name, value in _base(model):
            _local(value).copy_(kept[name])


def _reshard(model: nn.Module) -> None:
    """FSDP2 leaves what it gathered last as it is until the next pass: into its shards again."""
    for module in model.modules():
        reshard: Callable[[], None] | None = getattr(module, "reshard", None)
        if reshard is not None:
            reshard()


def _base(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in model.named_parameters() if "lora_" not in name]


def _plain(name: str) -> str:
    """The name of a parameter in the model itself, below the wrappings."""
    return name.removeprefix("module.").removeprefix("base_model.model.").replace(".base_layer.", ".")


def _local(value: Tensor) -> Tensor:
    data: Any = value.detach()
    local: Tensor = data.to_local() if hasattr(data, "to_local") else data
    return local


def _fill(value: nn.Parameter, whole: Tensor | None, device: torch.device) -> None:
    from torch.distributed.tensor import DTensor, distribute_tensor

    data: Any = value.detach()
    if whole is None:
        full = torch.empty(value.shape, dtype=value.dtype, device=device)
    else:
        full = whole.detach().to(device=device, dtype=value.dtype)
    if isinstance(data, DTensor):
        # The first rank's values are scattered; the others' are not looked at.
        _local(value).copy_(distribute_tensor(full, data.device_mesh, data.placements).to_local())
        return
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(full, 0)
    data.copy_(full)
