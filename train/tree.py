"""Prompt trees and packs: how many completions of many prompts become one row without padding and without repeats.

A tree is a prompt and its completions as branches. In a pack, trees stand end to end; a branch's positions go on where
its prompt ends, and a branch attends to its prompt and itself. A branch's last token is predicted and never an input.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FORWARD_ONLY = 2
"""How many times more tokens a pack may hold where no gradient is asked for: activations then live for one layer, and
longer packs split fewer trees."""
SPLITS = (1, 2, 4)
"""Into trees of at most the mean rank's tokens over each of these a batch is split, to see what balances best."""
# Shape suffixes: T tokens of a pack, C completion tokens that a pack predicts.


class Branch(NamedTuple):
    """One completion of a tree's prompt."""

    ids: NDArray[np.int32]
    slot: int
    """Where its log-probability goes: the caller's own number."""


class Tree(NamedTuple):
    """A prompt with its completions."""

    prompt: NDArray[np.int32]
    branches: list[Branch]

    def tokens(self) -> int:
        """Input tokens: the prompt once, and each branch without its last."""
        return len(self.prompt) + sum(len(branch.ids) - 1 for branch in self.branches)


class Span(NamedTuple):
    """Where one tree lies in a pack: its prompt is [start, prompt_end), its branches follow."""

    start: int
    prompt_end: int
    branches: tuple[tuple[int, int], ...]

    def sizes(self) -> list[int]:
        """Tokens of the prompt and of each branch, in the order in which they lie."""
        return [self.prompt_end - self.start, *(end - start for start, end in self.branches)]


class Pack(NamedTuple):
    """One row of tokens for one forward pass."""

    ids_T: Tensor
    """int64."""
    positions_T: Tensor
    """int64; the position of each token in its own conversation."""
    spans: tuple[Span, ...]
    predictors_C: Tensor
    """int64; place in the pack whose hidden state predicts each completion token."""
    targets_C: Tensor
    """int64; the completion tokens."""
    lengths: tuple[int, ...]
    """Completion tokens of each branch; they sum to C."""
    slots: tuple[int, ...]
    """The slot of each branch."""

    def to(self, device: torch.device) -> "Pack":
        """The same pack with its tensors on a device."""
        return self._replace(
            ids_T=self.ids_T.to(device),
            positions_T=self.positions_T.to(device),
            predictors_C=self.predictors_C.to(device),
            targets_C=self.targets_C.to(device),
        )


def make_packs(trees: Iterable[Tree], tokens_per_pack: int) -> list[Pack]:
    """Lay trees into as few packs as first-fit-decreasing finds, each of at most `tokens_per_pack` tokens.

    A tree that is longer is split between its branches; a single branch with its prompt that is still longer has a pack
    to itself.
    """
    parts = sorted((p for tree in trees for p in _split(tree, tokens_per_pack)), key=Tree.tokens, reverse=True)
    bins: list[list[Tree]] = []
    rooms: list[int] = []
    for tree in parts:
        need = tree.tokens()
        place = next((i for i, room in enumerate(rooms) if room >= need), None)
        if place is None:
            bins.append([tree])
            rooms.append(tokens_per_pack - need)
        else:
            bins[place].append(tree)
            rooms[place] -= need
    return [lay(trees) for trees in bins]


def _split(tree: Tree, limit: int) -> list[Tree]:
    parts: list[Tree] = []
    for branch in tree.branches:
        if parts and parts[-1].tokens() + len(branch.ids) - 1 <= limit:
            parts[-1].branches.append(branch)
        else:
            parts.append(Tree(tree.prompt, [branch]))
    return parts


def lay(trees: Sequence[Tree]) -> Pack:
    """The pack of these trees, end to end."""
    ids: list[NDArray[np.int32]] = []
    positions: list[NDArray[np.int64]] = []
    predictors: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.int32]] = []
    spans: list[Span] = []
    place = 0
    for tree in trees:
        start, prompt_end = place, place + len(tree.prompt)
        ids.append(tree.prompt)
        positions.append(np.arange(len(tree.prompt)))
        place = prompt_end
        branches = []
        for branch in tree.branches:
            end = place + len(branch.ids) - 1
            ids.append(branch.ids[:-1])
            positions.append(np.arange(len(tree.prompt), len(tree.prompt) + len(branch.ids) - 1))
            predictors.append(np.concatenate([[prompt_end - 1], np.arange(place, end)]))
            targets.append(branch.ids)
            branches.append((place, end))
            place = end
        spans.append(Span(start, prompt_end, tuple(branches)))
    every = [branch for tree in trees for branch in tree.branches]
    return Pack(
        _long(ids),
        _long(positions),
        tuple(spans),
        _long(predictors),
        _long(targets),
        tuple(len(branch.ids) for branch in every),
        tuple(branch.slot for branch in every),
    )


def _long(parts: Sequence[NDArray[np.int32]] | Sequence[NDArray[np.int64]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def _balanced(parts: Sequence[Tree], ranks: int) -> list[list[Tree]]:
    """The longest first, each to the rank that has least."""
    loads = [0] * ranks
    mine: list[list[Tree]] = [[] for _ in range(ranks)]
    for tree in sorted(parts, key=Tree.tokens, reverse=True):
        rank = loads.index(min(loads))
        mine[rank].append(tree)
        loads[rank] += tree.tokens()
    return mine


def _slowest(mine: Sequence[Sequence[Tree]]) -> int:
    return max(sum(tree.tokens() for tree in share) for share in mine)


def share(trees: Sequence[Tree], ranks: int, tokens_per_pack: int) -> list[list[Pack]]:
    """The packs of each rank: balanced by tokens, and of equal number, since a collective needs every rank.

    A tree is split between its branches where that shortens the slowest rank, though its prompt is then computed again.
    A rank with fewer packs repeats one of its own (or the first of all) without branches that count: its slots are
    empty, so its log-probabilities go nowhere.
    """
    mean = sum(tree.tokens() for tree in trees) // ranks
    limits = [tokens_per_pack, *(min(tokens_per_pack, mean // part) for part in SPLITS if ranks > 1)]
    tried = (_balanced([part for tree in trees for part in _split(tree, limit)], ranks) for limit in limits)
    mine = min(tried, key=_slowest)
    packs = [make_packs(share, tokens_per_pack) for share in mine]
    most = max(len(own) for own in packs)
    shortest = min((tree for share in mine for tree in share), key=Tree.tokens)
    idle = lay([Tree(shortest.prompt[:1], [Branch(shortest.branches[0].ids[:1], -1)])])._replace(slots=())
    return [own + [idle] * (most - len(own)) for own in packs]
