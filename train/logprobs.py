"""Log-probabilities of every branch of a pack, in chunks of positions, never all logits at once."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from kto_release.train.attention import NAME, tree_attention
from kto_release.train.tree import Pack

CHUNK_LOGITS = 2**24
"""Logits that may exist at once, per chunk: 64 MiB in fp32."""
# Shape suffixes: T tokens of a pack, C completion tokens, N branches, E hidden size.


def teach_trees(model: Any) -> None:
    """Let a transformers causal language model compute branch log-probabilities in its own forward.

    In the forward itself and not beside it, so that DDP, FSDP and DeepSpeed, which act around `forward`, gather the
    output head like every other layer. Calls without `predictors_C` are untouched. Works below PEFT's wrappers too:
    pass the base model.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)
    model.set_attn_implementation(NAME)
    ordinary_forward = model.forward

    def forward(self: Any, *args: Any, predictors_C: Tensor | None = None, **kwargs: Any) -> Any:
        if predictors_C is None:
            return ordinary_forward(*args, **kwargs)
        targets_C = kwargs.pop("targets_C")
        lengths = kwargs.pop("lengths")
        hidden_TE = self.get_decoder()(*args, use_cache=False, **kwargs).last_hidden_state[0]
        # index_select, not hidden_TE[predictors_C]: the backward of the latter adds repeated places in varying order.
        logps_C = _token_logprobs(hidden_TE.index_select(0, predictors_C), self.get_output_embeddings(), targets_C)
        return torch.stack([part.sum() for part in logps_C.split(list(lengths))])

    model.forward = MethodType(forward, model)


def branch_logprobs(model: nn.Module, pack: Pack) -> Tensor:
    """log pi(branch | prompt) of each branch of a pack: summed over its tokens, shape (N,), fp32 or fp64.

    `pack` is on the model's device.
    """
    logps_N: Tensor = model(
        input_ids=pack.ids_T[None],
        position_ids=pack.positions_T[None],
        spans=pack.spans,
        predictors_C=pack.predictors_C,
        targets_C=pack.targets_C,
        lengths=pack.lengths,
    )
    return logps_N


def _token_logprobs(hidden_CE: Tensor, head: Any, targets_C: Tensor) -> Tensor:
    vocabulary = getattr(head, "out_features", 0) or head.weight.shape[0]
    chunk = max(1, CHUNK_LOGITS // int(vocabulary))
    parts = []
    for hidden, targets in zip(hidden_CE.split(chunk), targets_C.split(chunk), strict=True):
        if torch.is_grad_enabled():
            # The logits of a chunk are dropped after the forward pass and computed again in the backward pass.
            parts.append(checkpoint(_chunk_logprobs, hidden, head, targets, use_reentrant=False))
        else:
            parts.append(_chunk_logprobs(hidden, head, targets))
    return torch.cat(parts)


def _chunk_logprobs(hidden: Tensor, head: Any, targets: Tensor) -> Tensor:
    logits = head(hidden)
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return -cross_entropy(logits, targets, reduction="none")
