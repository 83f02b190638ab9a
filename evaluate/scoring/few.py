"""What few questions can tell: intervals under 200 instructions, and a test that holds its level at any number.

The percentile bootstrap is too narrow here: of 20 instructions its interval of a rate of 5% holds the true one in 64%.
The bounds below are Clopper and Pearson's for as many yes-or-no questions as the values' spread is worth (the effective
sample size of Korn and Graubard, Survey Methodology 24, 1998), with Student's t for so few. `python
benchmarks/coverage.py --few` measures them: 95% or more for every rate from 5 to 95% and 5 to 200 instructions.
"""

import itertools
import math

import numpy as np
import numpy.typing as npt

from kto_release.evaluate.scoring.intervals import FEW, LEVEL, percentile_interval
from kto_release.records import Interval

METHOD = "Clopper-Pearson with the effective sample size of the values' spread"
FLIPS = 10_000
"""Signs are drawn so often where trying all of them would take too long: the smallest p-value is 1 in 10,001."""
EXACT = 14
"""Up to so many differences all their signs are tried: 16,384."""
TELLING = 6
"""Fewer instructions on which two models differ can't tell them apart: with 5, the smallest p-value is 0.0625."""

Floats = npt.NDArray[np.float64]


def rate_interval(value: float, values: Floats, replicates: Floats) -> Interval:
    """The interval of a rate of `value` percent: the mean of `values` (N,) in [0, 1], one for each instruction.

    From 200 instructions on it is the percentile bootstrap's, of `replicates`.
    """
    n = len(values)
    if n >= FEW:
        return percentile_interval(value, replicates, n, wins=float(values.sum()))
    low, high = (100 * bound for bound in _bounds(values, 1))
    note = "a single instruction" if n == 1 else None
    return Interval(
        value=value,
        low=min(low, value),
        high=max(high, value),
        n=n,
        level=LEVEL,
        method=METHOD,
        reliable=note is None,
        note=note,
    )


def difference_interval(differences: Floats, replicates: Floats, wins: float) -> Interval:
    """The interval of a mean of paired differences (N,) in [-1, 1], in points.

    From 200 instructions on it is the percentile bootstrap's, of `replicates`; `wins` as there.
    """
    n, value = len(differences), float(differences.mean() * 100)
    if n >= FEW:
        return percentile_interval(value, replicates, n, wins=wins)
    low, high = (200 * bound - 100 for bound in _bounds((differences + 1) / 2, 0))
    telling = int(np.count_nonzero(differences))
    note = f"only {telling} of {n} instructions tell the two apart" if telling < TELLING else None
    return Interval(
        value=value,
        low=min(low, value),
        high=max(high, value),
        n=n,
        level=LEVEL,
        method=f"{METHOD}, paired",
        reliable=note is None,
        note=note,
    )


def sign_flip(differences: Floats, seed: int = 0) -> float:
    """Two-sided p-value of "no difference": how many choices of signs give a mean at least this far from 0.

    `differences` (N,) are one for each instruction. Where neither side is better, each could as well have had the
    other sign, so that the test holds its level at any N, for whatever values. All choices are tried up to 14
    differences that are not 0, and 10,000 are drawn beyond.
    """
    telling = np.asarray(differences, float)
    telling = telling[telling != 0]
    if not len(telling):
        return 1.0
    least = abs(telling.sum()) * (1 - 1e-9)  # a sum in another order may differ in its last digits
    if len(telling) <= EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(telling))))
        return float(np.mean(np.abs(signs @ telling) >= least))
    signs = np.random.default_rng(seed).integers(0, 2, (FLIPS, len(telling)), dtype=np.int8) * 2.0 - 1
    return float((1 + np.sum(np.abs(signs @ telling) >= least)) / (FLIPS + 1))


def _bounds(values: Floats, added: int) -> tuple[float, float]:
    """Lowest and highest mean of values in [0, 1] that goes with these.

    Their spread is taken with `added` wins and as many losses more: few values that lie together may be so by chance.
    """
    from scipy import stats  # half a second

    n, mean = len(values), float(values.mean())
    if n == 1:
        return 0.0, 1.0
    count = n + 2 * added
    centre = (float(values.sum()) + added) / count
    squares = float(((values - centre) ** 2).sum()) + added * (centre**2 + (1 - centre) ** 2)
    worth = float(n)
    if squares > 0:
        worth = max(1.0, centre * (1 - centre) / (squares / (count - 1)) * n)
    tail = (1 - LEVEL) / 2
    worth /= float(stats.t.ppf(1 - tail, n - 1) / stats.norm.ppf(1 - tail)) ** 2
    wins = mean * worth
    low = float(stats.beta.ppf(tail, wins, worth - wins + 1)) if wins > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, wins + 1, worth - wins)) if wins < worth else 1.0
    return (low if math.isfinite(low) else 0.0), (high if math.isfinite(high) else 1.0)
