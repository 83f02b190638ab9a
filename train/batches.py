"""Global batches: which feedback makes one optimizer step, and which completion is whose KL partner.

Everything is drawn from (seed, epoch) alone, so it is the same on every rank, on any hardware and after a resume.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kto_release.errors import DataError
from kto_release.recipe import TrainSection
from kto_release.train.tokens import Tokens

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
# Shape suffixes: F feedback of the partition, B feedback of one global batch.

WINDOW = 256
"""How many waiting prompts are looked at for one that fits; bounds the cost of filling a batch."""


class GlobalBatch(NamedTuple):
    """The feedback of one optimizer step, over all ranks."""

    feedback_B: IntArray
    """Indices of feedback in the partition; those of one prompt stand together."""
    partner_B: IntArray
    """Index of the feedback whose completion is the KL partner of each."""


class _Group(NamedTuple):
    """Completions of one prompt that stay together."""

    prompt: int
    members: IntArray


def all_batches(tokens: Tokens, train: TrainSection, iteration: int) -> list[GlobalBatch]:
    """The global batches of an iteration (from 1) over all of its epochs: one for each optimizer step.

    Raises `DataError` where all feedback has one prompt.
    """
    return [
        batch
        for epoch in range(train.epochs)
        for batch in epoch_batches(
            tokens.prompt_F, tokens.desirable_F, train.batch_size, train.seed, iteration * 1_000_003 + epoch
        )
    ]


def epoch_batches(
    prompt_F: IntArray, desirable_F: BoolArray, batch_size: int, seed: int, epoch: int
) -> list[GlobalBatch]:
    """The global batches of one epoch, in order.

    Shuffled; each holds desirable and undesirable feedback in the ratio of the whole as far as siblings allow. At most
    `batch_size` feedback each (one prompt more in the last, where it would be alone), fewer where the next prompt does
    not fit. Completions of one prompt stay together unless they are more than half a batch.

    Args:
        prompt_F: prompt of each feedback.
        desirable_F: its label.
        batch_size: most feedback of a batch, at least 2.
        seed: the recipe's.
        epoch: from 0; another epoch has another order and other partners.

    Raises `DataError` where all feedback has one prompt, since a KL partner needs another.
    """
    check_prompts(prompt_F)
    rng = np.random.default_rng([seed, epoch])
    batches = _mended(_filled(_spread(_groups(prompt_F, batch_size), desirable_F, rng), batch_size))
    return [_with_partners(np.concatenate([group.members for group in batch]), prompt_F, rng) for batch in batches]


def check_prompts(prompt_F: IntArray) -> None:
    """Raise `DataError` where all feedback has one prompt."""
    if len(set(prompt_F.tolist())) < 2:
        raise DataError(
            f"all {len(prompt_F)} rows of feedback share one prompt",
            expected="at least two prompts: the KL partner of an answer is an answer to another prompt",
        )


def _groups(prompt_F: IntArray, batch_size: int) -> list[_Group]:
    order_F = np.argsort(prompt_F, kind="stable")
    starts = np.flatnonzero(np.diff(prompt_F[order_F], prepend=prompt_F[order_F[0]] - 1))
    # Half a batch at most, so that there is always room for another prompt beside it.
    limit = batch_size // 2
    return [
        _Group(int(prompt_F[members[0]]), part)
        for members in np.split(order_F, starts[1:])
        for part in np.array_split(members, -(-len(members) // limit))
    ]


def _spread(groups: Sequence[_Group], desirable_F: BoolArray, rng: np.random.Generator) -> list[_Group]:
    """Shuffle, and spread every kind of group (so many liked, so many disliked) evenly over the epoch."""
    kinds: dict[tuple[int, int], list[_Group]] = {}
    for group in groups:
        liked = int(desirable_F[group.members].sum())
        kinds.setdefault((liked, len(group.members) - liked), []).append(group)
    placed: list[tuple[float, _Group]] = []
    for kind in sorted(kinds):
        members, phase = kinds[kind], rng.random()
        placed += [
            ((place + phase) / len(members), members[i]) for place, i in enumerate(rng.permutation(len(members)))
        ]
    return [group for _, group in sorted(placed, key=lambda item: item[0])]


def _filled(groups: Sequence[_Group], batch_size: int) -> list[list[_Group]]:
    """Cut the sequence into batches; a group that does not fit waits for the next one."""
    batches: list[list[_Group]] = []
    waiting = list(groups)
    while waiting:
        batch: list[_Group] = []
        room = batch_size
        place = 0
        while room and place < min(len(waiting), WINDOW):
            group = waiting[place]
            alone = len({g.prompt for g in batch} | {group.prompt}) == 1 and bool(batch)
            if len(group.members) <= room and not alone:
                batch.append(waiting.pop(place))
                room -= len(group.members)
            else:
                place += 1
        batches.append(batch)
    return batches


def _mended(batches: list[list[_Group]]) -> list[list[_Group]]:
    """Give every batch at least two prompts: a lone one gets a group of another batch, or joins it."""
    mended: list[list[_Group]] = []
    for batch in batches:
        prompts = {group.prompt for group in batch}
        if len(prompts) > 1 or not mended:
            mended.append(batch)
            continue
        donor = next(
            (other for other in reversed(mended) if _spare(other, prompts) is not None),
            None,
        )
        if donor is not None:
            spare = _spare(donor, prompts)
            if spare is not None:
                mended.append([*batch, donor.pop(spare)])
        else:
            mended[-1] = [*mended[-1], *batch]
    if len({group.prompt for group in mended[0]}) == 1 and len(mended) > 1:
        mended[1] = [*mended[0], *mended[1]]
        del mended[0]
    return mended


def _spare(batch: Sequence[_Group], unlike: set[int]) -> int | None:
    """Place of the last group of another prompt that `batch` can give away and still hold two prompts."""
    for place in range(len(batch) - 1, -1, -1):
        rest = {group.prompt for i, group in enumerate(batch) if i != place}
        if batch[place].prompt not in unlike and len(rest) > 1:
            return place
    return None


def _with_partners(feedback_B: IntArray, prompt_F: IntArray, rng: np.random.Generator) -> GlobalBatch:
    prompt_B = prompt_F[feedback_B]
    return GlobalBatch(feedback_B, feedback_B[partners(prompt_B, rng)])


def partners(prompt_B: IntArray, rng: np.random.Generator) -> IntArray:
    """For each member of a batch, the place of its KL partner: a member with another prompt.

    Where no prompt holds more than half of the batch, every completion is the partner of exactly one other. Else each
    one draws from all completions of other prompts.

    Raises `DataError` where all members have one prompt.
    """
    size = len(prompt_B)
    _, inverse_B, counts = np.unique(prompt_B, return_inverse=True, return_counts=True)
    largest = int(counts.max())
    if largest == size:
        raise DataError(
            "a global batch holds one prompt only, so no KL partner exists", expected="at least two prompts"
        )
    if 2 * largest <= size:
        # In an order where equal prompts stand together, a cyclic shift by at least the largest group and at most the
        # rest never lands on the own prompt.
        rank = rng.permutation(len(counts))[inverse_B]
        order_B = np.lexsort((rng.random(size), rank))
        shift = int(rng.integers(largest, size - largest + 1))
        found_B = np.empty(size, dtype=np.int64)
        found_B[order_B] = np.roll(order_B, -shift)
        return found_B
    return np.array([rng.choice(np.flatnonzero(prompt_B != prompt)) for prompt in prompt_B], dtype=np.int64)
