"""Where a model's weights lie for forward passes alone: on the device as they are, halved, or streamed to it.

No step of a run needs the whole model in fp32 on one card: 7B parameters are 27 GiB.
"""

from typing import Any

import torch
from torch import nn

SHARE = 0.7
"""Of the free memory, what weights may take; the rest is for activations, logits and the cache of generation."""


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))


def place(model: Any, device: torch.device) -> None:
    """Put a model on a device where it fits; else each layer's weights visit it while the layer computes.

    No gradient will be asked for. (Weights that want one are also kept in bf16 by autocast until the pass ends.)
    """
    model.requires_grad_(False)
    if device.type == "cpu":
        return
    if weight_bytes(model) <= SHARE * torch.cuda.mem_get_info(device)[0]:
        model.to(device)
    else:
        stream(model, device)


def stream(model: Any, device: torch.device) -> None:
    """Leave the weights in the host's memory; each layer's visit the device for its forward pass."""
    from accelerate import cpu_offload

    cpu_offload(model, execution_device=device)


def device_of(model: Any) -> torch.device:
    """Where a model computes; its weights may lie elsewhere meanwhile."""
    device: torch.device = next(model.parameters()).device
    if device.type != "meta":
        return device
    hooks: list[Any] = [getattr(module, "_hf_hook", None) for module in model.modules()]
    return torch.device(next(hook.execution_device for hook in hooks if getattr(hook, "execution_device", None)))


def halve(model: Any) -> None:
    """Before passes under bf16 autocast: keep in bf16 what autocast makes bf16 of for every product.

    The numbers are the same to the last bit, and the linear layers' weights take half the memory. Those that are also
    looked up, as tied embeddings are, stay as they are. A streamed model lies in the host's memory afterwards.
    """
    from accelerate.hooks import remove_hook_from_submodules

    for module in model.modules():
        if hasattr(module, "kto_own_forward"):  # a taught head: its teaching lies over the hook that goes
            module.forward = module.kto_own_forward
            del module.kto_own_forward
    remove_hook_from_submodules(model)
    shared = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if type(module) is nn.Linear and id(module.weight) not in shared:
            module.to(torch.bfloat16)
