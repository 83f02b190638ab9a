"""Attention of a whole pack in one call a layer: PyTorch's variable-length flash attention, over gathered keys.

Every part of a pack (a prompt, a branch) is one sequence of the call. Its queries lie where they lie; its keys are its
prompt's and its own. Flash attention aligns a causal mask with the last key, so a branch's first token sees its whole
prompt and itself. `attention.tree_attention`, part by part, is the reference, and what is used where this is not.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kto_release.train.tree import Span

WHOLE_PACKS = "kto_whole_packs"
OPERATOR = "torch_attn::_varlen_attn"
MOST_HEAD_DIMENSION, HEAD_STEP = 256, 8
"""Flash attention's own limits."""
# Shape suffixes: T tokens of a pack, K gathered keys, N sequences, R copies of a key, H heads, D head dimension.


class KeyPlan(NamedTuple):
    """Who attends to what in a pack; made once per pack, the same for every layer."""

    query_ends_N: Tensor
    """int32 (N + 1,), from 0: where each sequence's queries end."""
    key_ends_N: Tensor
    """int32 (N + 1,), from 0: where each sequence's gathered keys end."""
    source_K: Tensor
    """int64; the token whose key stands at each gathered place."""
    copies_TR: Tensor
    """int64; the gathered places of each token's key, K where it has no more."""
    longest_query: int
    longest_key: int

    def to(self, device: torch.device) -> "KeyPlan":
        """The same plan on a device."""
        moved = (value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for value in self)
        return KeyPlan(*moved)  # type: ignore[arg-type]


def key_plan(spans: Sequence[Span]) -> KeyPlan:
    """The plan of a pack, from where its trees lie; no tensor of it is larger than the gathered keys."""
    queries, keys, sources = [], [], []
    for span in spans:
        prompt = np.arange(span.start, span.prompt_end)
        queries.append(len(prompt))
        keys.append(len(prompt))
        sources.append(prompt)
        for start, end in span.branches:
            if end > start:
                queries.append(end - start)
                keys.append(len(prompt) + end - start)
                sources += [prompt, np.arange(start, end)]
    source_K = np.concatenate(sources)
    count_T = np.bincount(source_K, minlength=sum(queries))
    by_source_K = np.argsort(source_K, kind="stable")  # the places of each token's copies stand together, in order
    first_T = np.cumsum(count_T) - count_T
    copies_TR = np.full((len(count_T), int(count_T.max())), len(source_K))
    copies_TR[source_K[by_source_K], np.arange(len(source_K)) - first_T[source_K[by_source_K]]] = by_source_K
    return KeyPlan(
        _ends(queries), _ends(keys), torch.from_numpy(source_K), torch.from_numpy(copies_TR), max(queries), max(keys)
    )


def _ends(sizes: list[int]) -> Tensor:
    return torch.tensor(np.cumsum([0, *sizes]), dtype=torch.int32)


class _Gathered(torch.autograd.Function):
    """Rows by number; the gradients of a row's copies are added in a fixed order, and in fp32.

    The backward of indexing adds them in whatever order threads arrive, and in the gradient's own precision.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, source_K: Tensor, copies_TR: Tensor) -> Tensor:
        ctx.save_for_backward(copies_TR)
        return rows.index_select(0, source_K)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (copies_TR,), (gradient,) = ctx.saved_tensors, gradients
        exact = torch.promote_types(gradient.dtype, torch.float32)
        padded = torch.cat([gradient, gradient.new_zeros(1, *gradient.shape[1:])])
        total = padded.index_select(0, copies_TR[:, 0]).to(exact)
        for copy in range(1, copies_TR.shape[1]):
            total += padded.index_select(0, copies_TR[:, copy])
        return total.to(gradient.dtype), None, None


def fits(query_1HTD: Tensor, value_1HTD: Tensor, dropout: float) -> bool:
    """Whether flash attention computes this: half precision on a GPU, heads of equal and usual size, no dropout."""
    size = query_1HTD.shape[-1]
    usual = size == value_1HTD.shape[-1] and size % HEAD_STEP == 0 and size <= MOST_HEAD_DIMENSION
    half = value_1HTD.dtype in (torch.bfloat16, torch.float16) or value_1HTD.device.type == "cpu"
    return usual and half and dropout == 0.0


def attend(
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    plan: KeyPlan,
    scaling: float | None = None,
    sliding_window: int | None = None,
) -> Tensor:
    """Attention of all parts of a pack at once, as (1, T, H, D). Keys and values may have fewer heads than queries."""
    from torch.nn.attention.varlen import varlen_attn

    # Under autocast the rotation of positions leaves queries and keys in fp32.
    query, key, value = (part[0].transpose(0, 1).to(value_1HTD.dtype) for part in (query_1HTD, key_1HTD, value_1HTD))
    gathered: Any = _Gathered.apply  # torch gives it no types
    key, value = (gathered(part, plan.source_K, plan.copies_TR) for part in (key, value))
    # Flash attention counts the keys to the left of a query, transformers the query too; this tuple alone is "causal".
    window = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
    found: Any = varlen_attn(
        query,
        key,
        value,
        plan.query_ends_N,
        plan.key_ends_N,
        plan.longest_query,
        plan.longest_key,
        scale=scaling,
        window_size=window,
        enable_gqa=True,
    )
    whole: Tensor = found[None]
    return whole


def exists_for(device: torch.device) -> bool:
    """Whether the operator may have a kernel for a device: on GPUs, and where one was registered."""
    from torch.nn.attention import varlen

    if device.type == "cuda":
        return True
    return varlen is not None and torch._C._dispatch_has_kernel_for_dispatch_key(OPERATOR, device.type.upper())  # noqa: SLF001 - there is no public question


def take_whole_packs(model: nn.Module, chosen: bool) -> None:
    """Let a taught model, in whatever wrapping, attend over whole packs or part by part."""
    for module in model.modules():
        if hasattr(module, WHOLE_PACKS):
            setattr(module, WHOLE_PACKS, chosen)


def takes_whole_packs(model: nn.Module) -> bool:
    """Whether a taught model, in whatever wrapping, attends over whole packs."""
    return any(getattr(module, WHOLE_PACKS, False) for module in model.modules())
