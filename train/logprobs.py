"""Log-probabilities of every branch of a pack, in chunks of positions, never all logits at once."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from kto_release.train.attention import NAME, tree_attention
from kto_release.train.plain import PLAIN, ROAD, TREES, plain_logprobs, road
from kto_release.train.tree import Pack
from kto_release.train.varlen import WHOLE_PACKS, key_plan, takes_whole_packs

CHUNK_LOGITS = 2**24
"""Logits that may exist at once, per chunk: 64 MiB in fp32."""
# Shape suffixes: T tokens of a pack, C completion tokens, N branches, E hidden size.


def teach_trees(model: Any) -> None:
    """Let a transformers causal language model compute branch log-probabilities in its own forward.

    In the forward itself and not beside it, so that DDP and FSDP, which act around `forward`, gather the output head
    like every other layer. Calls without `predictors_C` are untouched. Works below PEFT's wrappers too: pass the base
    model.
    The model computes prompt trees until `take_road` says otherwise; one whose attention can't be chosen never does.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)
    model.kto_own_attention = model.config._attn_implementation  # noqa: SLF001 - there is no public question
    ordinary_forward = model.forward

    def forward(self: Any, *args: Any, predictors_C: Tensor | None = None, **kwargs: Any) -> Any:
        if predictors_C is None:
            return ordinary_forward(*args, **kwargs)
        targets_C, lengths = kwargs.pop("targets_C"), kwargs.pop("lengths")
        if road(self) == PLAIN:
            return plain_logprobs(self, ordinary_forward, kwargs["input_ids"][0], kwargs["spans"], targets_C, lengths)
        hidden_TE = self.get_decoder()(*args, use_cache=False, **kwargs).last_hidden_state[0]
        head = self.get_output_embeddings()
        _teach_head(head)
        # index_select, not hidden_TE[predictors_C]: the backward of the latter adds repeated places in varying order.
        logps_C = head(hidden_TE.index_select(0, predictors_C), targets_C=targets_C)
        return torch.stack([part.sum() for part in logps_C.split(list(lengths))])

    # `generate` asks the signature which inputs a model takes, such as position_ids.
    own = inspect.signature(ordinary_forward)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = own.replace(parameters=[itself, *own.parameters.values()])  # type: ignore[attr-defined]
    model.forward = MethodType(forward, model)
    setattr(model, ROAD, PLAIN)
    setattr(model, WHOLE_PACKS, False)
    with suppress(ValueError, TypeError, AttributeError, NotImplementedError):
        take_road(model, TREES)


def take_road(model: Any, chosen: str) -> None:
    """Let a taught model compute prompt trees or plain sequences. Raises as transformers does, if it knows no trees."""
    model.set_attn_implementation(NAME if chosen == TREES else model.kto_own_attention)
    setattr(model, ROAD, chosen)


@contextmanager
def own_attention(model: Any) -> Iterator[None]:
    """A taught model with the attention that it came with, as for generation."""
    chosen = road(model)
    take_road(model, PLAIN)
    try:
        yield
    finally:
        take_road(model, chosen)


def branch_logprobs(model: nn.Module, pack: Pack) -> Tensor:
    """log pi(branch | prompt) of each branch of a pack: summed over its tokens, shape (N,), fp32 or fp64.

    `pack` is on the model's device.
    """
    whole = takes_whole_packs(model) and road(model) == TREES
    plan = {"key_plan": key_plan(pack.spans).to(pack.ids_T.device)} if whole else {}
    logps_N: Tensor = model(
        input_ids=pack.ids_T[None],
        position_ids=pack.positions_T[None],
        spans=pack.spans,
        predictors_C=pack.predictors_C,
        targets_C=pack.targets_C,
        lengths=pack.lengths,
        **plan,
    )
    if logps_N.dtype not in (torch.float32, torch.float64):
        raise RuntimeError(f"log-probabilities came out as {logps_N.dtype}: rounded to whole nats where they are large")
    return logps_N


def _teach_head(head: Any) -> None:
    """Let an output head give log-probabilities of targets, its logits in chunks.

    One call of the module per forward pass with the chunks inside: FSDP2 gathers and reduces per call, and ranks whose
    packs need other numbers of chunks would wait for each other for ever.
    """
    if hasattr(head, "kto_own_forward"):
        return
    own_forward = head.forward
    vocabulary = getattr(head, "out_features", 0) or head.weight.shape[0]

    def forward(hidden_CE: Tensor, *args: Any, targets_C: Tensor | None = None, **kwargs: Any) -> Tensor:
        if targets_C is None:
            logits: Tensor = own_forward(hidden_CE, *args, **kwargs)
            return logits
        chunk = max(1, CHUNK_LOGITS // int(vocabulary))
        parts = []
        for hidden, targets in zip(hidden_CE.split(chunk), targets_C.split(chunk), strict=True):
            if torch.is_grad_enabled():
                # The logits of a chunk are dropped after the forward pass and computed again in the backward pass.
                parts.append(checkpoint(_chunk_logprobs, hidden, own_forward, targets, use_reentrant=False))
            else:
                parts.append(_chunk_logprobs(hidden, own_forward, targets))
        return torch.cat(parts)

    head.kto_own_forward = own_forward
    head.forward = forward


def _chunk_logprobs(hidden: Tensor, head: Any, targets: Tensor) -> Tensor:
    logits = head(hidden)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return -cross_entropy(logits, targets, reduction="none")
