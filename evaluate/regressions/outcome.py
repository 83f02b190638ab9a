"""Two models on the samples of one benchmark: the paired difference, and whether the model held against the margin."""

from collections.abc import Mapping

import numpy as np

from kto_release.errors import ScoreError
from kto_release.evaluate.scoring.few import difference_interval
from kto_release.evaluate.scoring.intervals import FEW, resamples
from kto_release.records import RegressionFacts

RESAMPLES = 2000


def regression(
    name: str, metric: str, before: Mapping[str, float], after: Mapping[str, float], margin: float
) -> RegressionFacts:
    """What became of a benchmark's score: values in [0, 1] by sample, of the initial model and of the trained one.

    held: even the low end of the difference's interval is no loss of more than `margin` points. worse: it is a loss for
    certain, and maybe of more. too few to tell: the interval holds both. Raises `ScoreError` where the two models did
    not answer the same samples, or a value is outside [0, 1].
    """
    alone = before.keys() ^ after.keys()
    if alone or not before:
        raise ScoreError(
            f"{name}: {len(alone)} samples were answered by only one of the two models" if before else f"{name}: empty",
            expected="the same samples of both, so that the difference is the models'",
            todo="run both with the same tasks, limit and version",
        )
    order = sorted(before)
    values = np.array([[before[key], after[key]] for key in order], float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ScoreError(
            f"{name}: values of {metric!r} outside [0, 1]",
            expected="a metric that is a share for each sample, such as acc or exact_match",
        )
    differences = values[:, 1] - values[:, 0]
    replicates = differences
    if len(order) >= FEW:
        counts = resamples(len(order), RESAMPLES, 0)
        replicates = counts @ differences / len(order) * 100
    interval = difference_interval(differences, replicates, len(order) / 2)
    outcome = "held" if interval.low >= -margin else "worse" if interval.high < 0 else "too few to tell"
    return RegressionFacts(
        task=name,
        metric=metric,
        before=float(values[:, 0].mean() * 100),
        after=float(values[:, 1].mean() * 100),
        difference=interval,
        margin=margin,
        outcome=outcome,
    )
