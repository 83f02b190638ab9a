"""The verdict on a comparison: better, worse or not distinguishable, and how many questions it would take to tell."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kto_release.evaluate.scoring.few import TELLING, sign_flip
from kto_release.records import Interval, Verdict

ASKED = (2, 5)
"""Differences in points that it is said for how many questions would tell them."""
POWER_Z = 1.959964 + 0.841621
"""Standard normal quantiles of 97.5% and 80%: a difference is told at p < 0.05 by four of five such sets."""

Floats = npt.NDArray[np.float64]


def verdict_of(differences: Floats, points: Interval, doubts: Sequence[str] = ()) -> Verdict:
    """What (N,) differences in [-1, 1], one for each instruction, say of the answers that they favour when above 0.

    `points` is their mean's interval in points. Only where test and interval agree there is a difference.
    """
    p_value = sign_flip(differences)
    said = "not distinguishable"
    if p_value < 0.05 and not points.low <= 0 <= points.high:
        said = "better" if points.value > 0 else "worse"
    return Verdict(
        said=said,
        points=points,
        p_value=p_value,
        won=int((differences > 0).sum()),
        lost=int((differences < 0).sum()),
        drawn=int((differences == 0).sum()),
        needed={str(asked): count for asked in ASKED if (count := needed(differences, asked)) is not None},
        doubts=list(doubts),
    )


def needed(differences: Floats, points: float) -> int | None:
    """How many questions like these tell a true difference of so many points, at p < 0.05 in four of five sets.

    That is ((1.96 + 0.84) * spread / points)^2, the spread being the standard deviation of the differences in points.
    Null where there is no spread to judge by.
    """
    spread = float(np.std(differences, ddof=1) * 100) if len(differences) > 1 else 0.0
    return max(TELLING, math.ceil((POWER_Z * spread / points) ** 2)) if spread > 0 else None
