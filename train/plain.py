"""Plain sequences: log-probabilities by the model's own forward, one conversation at a time.

For models whose tokens meet outside the attention function that prompt trees replace (states, convolutions, windows
that are only in masks, soft caps, sinks, scaled logits, positions whose scale depends on the length). Slower, since a
prompt runs once per completion, and the same numbers by definition: nothing of the model is replaced.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kto_release.train.tree import Span

ROAD = "kto_road"
TREES = "prompt trees"
PLAIN = "plain sequences"
# Shape suffixes: T tokens of a pack, C completion tokens, S tokens of one conversation, N branches, V vocabulary.


def road(model: nn.Module) -> str:
    """`TREES` or `PLAIN`: how a taught model computes, whatever it is wrapped in."""
    found = next((getattr(module, ROAD) for module in model.modules() if hasattr(module, ROAD)), TREES)
    return str(found)


def room(model: nn.Module, tokens_per_pack: int) -> int:
    """Most tokens of a pack for this model; 0 where each completion needs a pack of its own.

    Then ranks of a collective make equally many forward passes, and one graph is alive at a time.
    """
    return tokens_per_pack if road(model) == TREES else 0


def plain_logprobs(
    model: nn.Module,
    forward: Callable[..., Any],
    ids_T: Tensor,
    spans: Sequence[Span],
    targets_C: Tensor,
    lengths: Sequence[int],
) -> Tensor:
    """log pi(branch | prompt) of each branch of a pack, shape (N,), fp32 or fp64, by the model's own `forward`."""
    targets = iter(targets_C.split(list(lengths)))
    found = []
    for span in spans:
        prompt = ids_T[span.start : span.prompt_end]
        found += [_completion_logprob(model, forward, prompt, next(targets)) for _ in span.branches]
    return torch.stack(found)


def _completion_logprob(model: nn.Module, forward: Callable[..., Any], prompt: Tensor, completion: Tensor) -> Tensor:
    return -token_losses(model, forward, torch.cat([prompt, completion]), len(completion)).sum()


def token_losses(model: nn.Module, forward: Callable[..., Any], ids_S: Tensor, last: int) -> Tensor:
    """-log pi of the `last` tokens of one conversation, by the model's own logits; fp32 or fp64."""
    _forget_lengths(model)
    keep = {"logits_to_keep": last + 1} if "logits_to_keep" in inspect.signature(forward).parameters else {}
    logits_SV = forward(input_ids=ids_S[None], use_cache=False, **keep).logits[0, -last - 1 : -1]
    if logits_SV.dtype in (torch.bfloat16, torch.float16):
        logits_SV = logits_SV.float()
    return cross_entropy(logits_SV, ids_S[-last:], reduction="none")


def _forget_lengths(model: nn.Module) -> None:
    """Positions of dynamic NTK keep the scale of the longest conversation so far; each is to have its own."""
    for module in model.modules():
        if getattr(module, "rope_type", None) == "dynamic" and hasattr(module, "original_inv_freq"):
            module.inv_freq = module.original_inv_freq
            module.max_seq_len_cached = module.original_max_seq_len
