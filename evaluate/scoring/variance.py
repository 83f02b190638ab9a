"""Where the uncertainty of a win rate comes from: the parts of its squared standard error."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from kto_release.judges.rows import Judged


def variance(good: Sequence[tuple[int, Judged]], standard_error: float | None, votes: int) -> dict[str, float | None]:
    """The squared standard error of the win rate, in squared percent, and its parts, which never exceed it.

    `good` are the scored rows with their instruction's number; `votes` is how often each question was asked.

    generation: the spread of the samples of one instruction, less the judge's part of it; null with one sample.
    judge: the spread of its votes on one question; null where each was asked once. What a judge says in the two orders
    is no measure of it: a liking for a place that differs by prompt cancels in their mean, and is no noise.
    instructions: the rest, which so holds whatever was not measured.
    """
    total = standard_error**2 if standard_error is not None else None
    parts: dict[str, float | None] = {"total": total, "instructions": total, "generation": None, "judge": None}
    if total is None:
        return parts
    judge = _of_votes([row for _, row in good], votes)
    spread = _of_samples(good)
    # Estimates of few samples can be above the whole, or below nothing: a part of a sum is neither.
    rest = total
    if judge is not None:
        parts["judge"] = min(judge, rest)
        rest -= min(judge, rest)
    if spread is not None:
        part = min(max(0.0, spread - (judge or 0.0)), rest)
        parts["generation"] = part
        rest -= part
    return {**parts, "instructions": rest}


def _of_votes(rows: Sequence[Judged], votes: int) -> float | None:
    """A share p of k votes varies by p(1 - p)/(k - 1), without bias; a pair's is the mean of its orders'."""
    if votes < 2:
        return None
    spreads = []
    for row in rows:
        shares = [one - 1 for one in row.preferences if one is not None]
        if shares:
            spreads.append(math.fsum(p * (1 - p) / (votes - 1) for p in shares) / len(shares) ** 2)
    return math.fsum(spreads) / len(rows) ** 2 * 1e4 if spreads else None


def _of_samples(good: Sequence[tuple[int, Judged]]) -> float | None:
    grouped = defaultdict(list)
    for number, row in good:
        grouped[number].append(row.preference)
    spreads = [np.var(np.array(values, float), ddof=1) for values in grouped.values() if len(values) > 1]
    return float(np.mean(spreads) / len(good) * 1e4) if spreads else None
