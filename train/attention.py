"""Attention over prompt trees: a prompt is causal, a branch sees its prompt and itself.

Registered with transformers' AttentionInterface, so any model that uses it gains prompt trees without changes. Each
part goes through PyTorch's scaled_dot_product_attention by itself: no dense mask over a pack, no padding. Where
varlen.py was proved on the device, the whole pack goes through one call instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from kto_release.errors import ModelError
from kto_release.train import varlen
from kto_release.train.tree import Span
from kto_release.train.varlen import KeyPlan

NAME = "kto_prompt_trees"
_seen: ContextVar[list[int] | None] = ContextVar("seen", default=None)
# Shape suffixes: H heads, T tokens of a pack, D head dimension.


@contextmanager
def calls_with_spans() -> Iterator[list[int]]:
    """Collects, for each call of `tree_attention` with spans, the id of the layer's module."""
    seen: list[int] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def tree_attention(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - the interface's; trees say by themselves who sees whom
    scaling: float | None = None,
    dropout: float = 0.0,
    spans: tuple[Span, ...] | None = None,
    sliding_window: int | None = None,
    key_plan: KeyPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface; `spans` and `key_plan` are passed through the model's forward.

    Without `spans` each row is one causal sequence. Returns the output as (1, T, H, D), and no weights.
    Raises `ModelError` for attention that this function does not compute: soft caps and sinks.
    """
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ModelError(
            f"{type(module).__name__} uses attention soft caps or sinks, which prompt trees do not support",
            expected="a model with plain scaled dot-product attention, such as Mistral, Llama, Qwen or SmolLM",
        )
    seen = _seen.get()
    if spans is not None and seen is not None:
        seen.append(id(module))
    if key_plan is not None and varlen.fits(query_1HTD, value_1HTD, dropout):
        return varlen.attend(query_1HTD, key_1HTD, value_1HTD, key_plan, scaling, sliding_window), None
    repeat = query_1HTD.shape[1] // key_1HTD.shape[1]
    if repeat > 1:
        key_1HTD = key_1HTD.repeat_interleave(repeat, dim=1)
        value_1HTD = value_1HTD.repeat_interleave(repeat, dim=1)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        plain = query.shape[2] == key.shape[2] and (sliding_window is None or key.shape[2] <= sliding_window)
        mask = None if plain else _mask(query.shape[2], key.shape[2], sliding_window, query.device)
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=plain, dropout_p=dropout, scale=scaling
        )

    if spans is None:
        return attend(query_1HTD, key_1HTD, value_1HTD).transpose(1, 2).contiguous(), None
    # One split, not a slice per part: the backward pass of a slice fills the whole pack with zeros.
    sizes = [size for span in spans for size in span.sizes()]
    queries, keys, values = (list(part.split(sizes, dim=2)) for part in (query_1HTD, key_1HTD, value_1HTD))
    outputs = []
    for span in spans:
        prompt_key, prompt_value = keys.pop(0), values.pop(0)
        outputs.append(attend(queries.pop(0), prompt_key, prompt_value))
        for start, end in span.branches:
            query, key, value = queries.pop(0), keys.pop(0), values.pop(0)
            if end > start:
                outputs.append(attend(query, torch.cat([prompt_key, key], 2), torch.cat([prompt_value, value], 2)))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _mask(queries: int, keys: int, sliding_window: int | None, device: torch.device) -> Tensor:
    """True where a query may look: the queries are the last of the keys, in order."""
    key = torch.arange(keys, device=device)
    query = torch.arange(keys - queries, keys, device=device)[:, None]
    mask = key <= query
    return mask if sliding_window is None else mask & (query - key < sliding_window)
