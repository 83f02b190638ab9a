"""Length control on a set of one's own: alpaca_eval's regression without the difficulty, which only its set has.

What is left is how preference goes with the length difference, and the model itself; the rate at a difference of 0 is
what the model would have with answers as long as the reference's. It is another number than AlpacaEval's, and has a
name of its own.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kto_release.evaluate.scoring.intervals import (
    LengthModel,
    length_controlled_replicates,
    percentile_interval,
)
from kto_release.records import Interval

FEWEST = 20
"""Instructions below which two coefficients would fit chance."""
REGULARIZATION = 10.0
"""scikit-learn's C: so weak a penalty that length is controlled for in full, and a set that is all won has a fit."""
NONE = np.zeros((0, 2))

Floats = npt.NDArray[np.float64]


def own_length_control(
    preferences: Sequence[float], differences: Sequence[float], counts: npt.NDArray[np.int64]
) -> Interval | None:
    """The win rate at equal length, in percent, with its bootstrap interval over resamples `counts` (B, N).

    `preferences` (N,) in [1, 2]; `differences` (N,) in characters, the reference's minus the model's. Null for fewer
    than 20 instructions, and where all differences are the same.
    """
    n = len(preferences)
    lengths = np.asarray(differences, float)
    if n < FEWEST or np.ptp(lengths) == 0:
        return None
    model = LengthModel(
        preferences=np.asarray(preferences, float) - 1,
        differences=lengths,
        difficulty=np.zeros(n),
        gamed=NONE,
        gamed_preferences=np.zeros(0),
        regularization=REGULARIZATION,
        start=np.zeros(3),
    )
    rate = float(length_controlled_replicates(model, np.ones((1, n)))[0])
    if not np.isfinite(rate):
        return None
    return percentile_interval(rate, length_controlled_replicates(model, counts), n, wins=rate / 100 * n)
