"""Before the first step: is what prompt trees give what the model gives? Otherwise plain sequences are computed."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from kto_release import console
from kto_release.errors import ModelError
from kto_release.train.attention import calls_with_spans
from kto_release.train.device import process_state
from kto_release.train.logprobs import branch_logprobs, take_road
from kto_release.train.placing import device_of
from kto_release.train.plain import PLAIN, TREES, room, token_losses
from kto_release.train.tokens import Tokens
from kto_release.train.tree import Branch, Tree, make_packs
from kto_release.train.waiting import from_main, together

SHORT_PROMPT, SHORT_BRANCH = 24, 12
ANSWER, NAT = 2e-4, 1e-5
"""Nats per answer, and per nat of its log-probability, that fp32 may differ by between trees and plain sequences on one
machine; the smallest real mismatch that was seen is 1e-3 on an answer of five tokens."""
QUANTIZED_TOKEN = 0.05
"""Nats per token where 4-bit weights compute in bf16: two equally right products differed by up to 0.0075."""
MISFITS = (
    ModelError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    ImportError,
)
"""What a model raises that has no room for trees: an unknown argument, a missing part, a shape."""
# Shape suffixes: N branches.


class Road(BaseModel):
    """How a model's log-probabilities are computed, and why not by trees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """`TREES` or `PLAIN`."""
    reason: str | None = None


@torch.no_grad()
def prove(model: Any, trees: list[Tree]) -> Road:
    """Compare a pack of these trees with plain forward passes of each sequence, and set the model's road.

    Args:
        model: taught by `teach_trees`, in evaluation mode.
        trees: several, some with several branches, the first short; slots count from 0.

    Raises `ModelError` where the model is no causal function of its sequence, or gives numbers that are not finite.
    """
    plain_N = _plain(model, trees)
    reason = _fault_of_trees(model, trees, plain_N)
    take_road(model, PLAIN if reason else TREES)
    return Road(name=PLAIN if reason else TREES, reason=reason)


def choose_road(model: Any, trees: list[Tree]) -> Road:
    """`prove` by the main process, which alone is sure to hold the weights; every process takes its road.

    Says once where plain sequences are needed. Raises `ModelError` as `prove` does.
    """
    state = process_state()
    road: Road | None = None
    with together(state):
        if state.is_main_process:
            road = prove(model, trees)
            if road.reason is not None:
                console.warn(
                    f"{type(model).__name__} is computed one sequence at a time, which is slower and the same "
                    f"function: prompt trees are not right for it ({road.reason})"
                )
    chosen: Road | None = from_main(state, road)
    if chosen is None:
        raise RuntimeError("the main process sent no road")
    take_road(model, chosen.name)
    return chosen


def _plain(model: Any, trees: list[Tree]) -> Tensor:
    """log pi of each branch by plain sequences; in fp64 on the CPU. Raises `ModelError` where they are no answer."""
    name = type(model).__name__
    take_road(model, PLAIN)
    try:
        found_N = _logps(model, trees)
        again = _logps(model, trees[:1])[0]
        before, after = _halves(model, trees[0])
    except torch.OutOfMemoryError:
        raise
    except MISFITS as error:
        raise ModelError(
            f"{name} can't compute the log-probabilities of a plain sequence: {_line(error)}",
            expected="a causal language model of transformers",
        ) from error
    if not bool(torch.isfinite(found_N).all()):
        raise ModelError(
            f"{name} gives log-probabilities that are not finite: {found_N.tolist()}",
            todo="look at the weights: they may hold NaN or infinity",
        )
    if not _near(model, found_N[:1], again[None], 1):
        raise ModelError(
            f"{name} gives a sequence {float(found_N[0]):.4f} nats, and {float(again):.4f} nats after others",
            expected="a model that carries nothing from one sequence to the next",
        )
    if not _near(model, before[None], after[None], 1):
        raise ModelError(
            f"{name} gives tokens {float(before):.4f} nats, and {float(after):.4f} nats where others follow them",
            expected="a causal language model: what follows a token must not change its probability",
        )
    return found_N


def _logps(model: Any, trees: list[Tree]) -> Tensor:
    found = torch.zeros(sum(len(tree.branches) for tree in trees), dtype=torch.float64)
    device = device_of(model)
    for pack in make_packs(trees, room(model, sum(tree.tokens() for tree in trees))):
        found[list(pack.slots)] = branch_logprobs(model, pack.to(device)).double().cpu()
    return found


def _halves(model: Any, tree: Tree) -> tuple[Tensor, Tensor]:
    """log pi of the tree's prompt but its first token, before one completion and before another of the same length."""
    completion, device = tree.branches[0].ids, device_of(model)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    found = []
    for following in (completion, (completion + 1) % vocabulary):
        ids_S = torch.from_numpy(np.concatenate([tree.prompt, following]).astype(np.int64)).to(device)
        losses = token_losses(model, model.forward, ids_S, len(ids_S) - 1)
        found.append(-losses[: len(tree.prompt) - 1].sum().double().cpu())
    return found[0], found[1]


def _fault_of_trees(model: Any, trees: list[Tree], plain_N: Tensor) -> str | None:
    """Why prompt trees are not right for this model, in words, or None."""
    try:
        take_road(model, TREES)
        with calls_with_spans() as seen:
            found_N = _logps(model, trees)
    except torch.OutOfMemoryError:
        raise
    except MISFITS as error:
        return _line(error)
    layers = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    if layers is None or len(seen) != layers or len(set(seen)) != layers:
        return f"{len(set(seen))} of its {layers} layers attend through the function that keeps trees apart"
    lengths = [len(branch.ids) for tree in trees for branch in tree.branches]
    for ours, plain, length in zip(found_N, plain_N, lengths, strict=True):
        if not _near(model, ours[None], plain[None], length):
            return f"a pack gives {float(ours):.4f} nats where a plain sequence gives {float(plain):.4f}"
    return None


def _near(model: Any, ours: Tensor, theirs: Tensor, tokens: int) -> bool:
    quantized = getattr(model, "is_quantized", False)
    allowed = QUANTIZED_TOKEN * tokens if quantized else ANSWER + NAT * theirs.abs()
    return bool(((ours - theirs).abs() <= allowed).all())


def _line(error: Exception) -> str:
    text = error.problem if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:160]


def proof_trees(tokens: Tokens, max_length: int, answer_tokens: int = 0) -> list[Tree]:
    """Two short trees around the longest conversation that any step can see; some branches have one token.

    Args:
        tokens: whose rows they are made of.
        max_length: most tokens of a conversation.
        answer_tokens: completions of so many tokens must be covered too, whatever the rows hold.
    """
    first, last = tokens.completion(0), tokens.completion(len(tokens) - 1)
    middle = tokens.completion(len(tokens) // 2)
    prompt, completion = tokens.longest()
    completion = np.resize(completion, max(len(completion), answer_tokens))
    return [
        _tree(tokens.prompt(0)[-SHORT_PROMPT:], [first[:SHORT_BRANCH], middle[:SHORT_BRANCH], first[:1]], 0),
        _tree(prompt, [completion[: max(1, max_length - len(prompt))]], 3),
        _tree(
            tokens.prompt(tokens.facts.prompts - 1)[-SHORT_PROMPT:],
            [last[:1], last[:SHORT_BRANCH], middle[:SHORT_BRANCH]],
            4,
        ),
    ]


def _tree(prompt: NDArray[np.int32], branches: list[NDArray[np.int32]], slot: int) -> Tree:
    return Tree(prompt, [Branch(ids, slot + number) for number, ids in enumerate(branches)])
