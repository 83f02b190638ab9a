"""What a judge's number means: its agreement with the official judge on anchors, and a map to the official scale.

The official judge was shut down, so nobody can produce a new number on its scale. Judging stored answers of models
whose official scores are known tells how another judge ranks them, how often it agrees, and what official score a
model with its win rate would have had: an estimate, with a wide interval, and always called one.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kto_release.digests import sha256_of
from kto_release.errors import ScoreError
from kto_release.evaluate.calibration.anchors import Anchor
from kto_release.evaluate.scoring.few import rate_interval
from kto_release.evaluate.scoring.intervals import LEVEL, percentile_interval, resamples, win_rate_replicates
from kto_release.judges.rows import Judged
from kto_release.positions import COUNT
from kto_release.provenance import environment, now
from kto_release.records import AnchorFacts, CalibrationRecord, Interval, JudgeFacts, OfficialMap

FEWEST_FOR_RANKS, FEWEST_FOR_A_MAP = 3, 4
MANY = 10
"""Anchors from which the rank correlation and the map are worth relying on."""
TARGETS = ("win_rate", "length_controlled_winrate")

Floats = npt.NDArray[np.float64]


def calibrate(
    anchors: Sequence[Anchor],
    judged: Mapping[str, Sequence[Judged]],
    judge: JudgeFacts,
    positions: Sequence[int],
    *,
    seed: int,
    bootstrap: int = 1000,
) -> CalibrationRecord:
    """What `judge` made of the anchors.

    `judged` holds for each anchor, by name, its rows at `positions`, in that order. Rows that failed are counted and
    take part in nothing. Raises `ScoreError` where an anchor has no usable row.
    """
    counts = resamples(len(positions), bootstrap, seed)
    facts, official, own = [], [], []
    for anchor in anchors:
        rows = judged[anchor.published.name]
        mine = np.array([_number(row.preference) for row in rows])
        theirs = np.array([_number(anchor.rows[number].preference) for number in positions])
        if np.isnan(mine).all():
            raise ScoreError(f"no judgement of {anchor.published.name} can be used: {rows[0].failure}")
        facts.append(_anchor(anchor, mine, theirs, counts))
        own.append(mine)
        official.append(theirs)
    mine_AN, theirs_AN = np.array(own), np.array(official)
    rates = [one.win_rate.value for one in facts]
    return CalibrationRecord(
        finished=now(),
        judge=judge,
        sample=len(positions),
        seed=seed,
        positions_sha256=sha256_of(list(positions)),
        n_failed=int(np.isnan(mine_AN).sum()),
        anchors=facts,
        rank_correlation=rank_correlation([anchor.published.win_rate for anchor in anchors], rates),
        kappa=_interval(cohens_kappa, mine_AN, theirs_AN, counts),
        mean_absolute_difference=_interval(_difference, mine_AN, theirs_AN, counts),
        maps=[
            found
            for target in TARGETS
            if (found := fit_map(target, rates, _known(anchors, target), len(positions))) is not None
        ],
        environment=environment(),
    )


def rank_correlation(official: Sequence[float], own: Sequence[float]) -> Interval | None:
    """Spearman's rank correlation over anchors, with its interval; null with fewer than three.

    The interval is Fisher's with the variance 1.06 / (n − 3) of Fieller, Hartley and Pearson (1957). A perfect
    correlation of n ranks is taken half a step below 1 for it, since the next lower one is 6·2 / (n³ − n) away: else it
    would claim certainty from a handful of models.
    """
    from scipy.stats import norm, spearmanr

    n = len(official)
    if n < FEWEST_FOR_RANKS or np.ptp(own) == 0 or np.ptp(official) == 0:
        return None
    value = float(spearmanr(official, own).statistic)
    if n == FEWEST_FOR_RANKS:
        low, high = -1.0, 1.0
    else:
        step = 6 / (n**3 - n)
        center = math.atanh(max(-1 + step, min(1 - step, value)))
        reach = float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt(1.06 / (n - 3))
        low, high = math.tanh(center - reach), math.tanh(center + reach)
    return Interval(
        value=value,
        low=min(low, value),
        high=max(high, value),
        n=n,
        level=LEVEL,
        method="Fisher's z over anchors, variance 1.06 / (n - 3)",
        reliable=n >= MANY,
        note=None if n >= MANY else f"{n} anchors are few: the interval is wide and rough",
    )


def cohens_kappa(mine: Floats, theirs: Floats, weights: Floats) -> float:
    """Cohen's kappa of two judges' verdicts (reference, draw, model); NaN where chance alone would agree always."""
    table = np.zeros((3, 3))
    np.add.at(table, (_verdict(mine), _verdict(theirs)), weights)
    table /= table.sum()
    expected = float(table.sum(axis=1) @ table.sum(axis=0))
    return (float(np.trace(table)) - expected) / (1 - expected) if expected < 1 else math.nan


def fit_map(target: str, rates: Sequence[float], official: Sequence[float | None], n: int) -> OfficialMap | None:
    """The line from log odds of a judge's win rate (percent, of `n` instructions) to those of an official score.

    Null with fewer than four anchors whose official score is known, or where their rates are all the same.
    """
    known = [(log_odds(x, n), log_odds(y, COUNT), x) for x, y in zip(rates, official, strict=True) if y is not None]
    if len(known) < FEWEST_FOR_A_MAP:
        return None
    x, y, plain = (np.array(column) for column in zip(*known, strict=True))
    spread = float(((x - x.mean()) ** 2).sum())
    if spread == 0:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    intercept = float(y.mean() - slope * x.mean())
    residual = float(np.sqrt(((y - intercept - slope * x) ** 2).sum() / (len(known) - 2)))
    return OfficialMap(
        target=target,
        anchors=len(known),
        intercept=intercept,
        slope=slope,
        residual=residual,
        center=float(x.mean()),
        spread=spread,
        low=float(plain.min()),
        high=float(plain.max()),
    )


def map_to_official(line: OfficialMap, win_rate: float, standard_error: float, n: int) -> Interval:
    """The official score of a model with this judge's `win_rate` (percent, of `n` instructions): a 95% prediction.

    It holds the anchors' spread around the line, the line's own uncertainty, and that of the win rate.
    """
    from scipy.stats import t

    x = log_odds(win_rate, n)
    share = 1 / (1 + math.exp(-x))
    own = line.slope * standard_error / 100 / (share * (1 - share))
    spread = line.residual**2 * (1 + 1 / line.anchors + (x - line.center) ** 2 / line.spread) + own**2
    reach = float(t.ppf((1 + LEVEL) / 2, line.anchors - 2)) * math.sqrt(spread)
    center = line.intercept + line.slope * x
    notes = []
    if line.anchors < MANY:
        notes.append(f"{line.anchors} anchors are few")
    if not line.low <= win_rate <= line.high:
        notes.append(f"outside the anchors' range of {line.low:.1f} to {line.high:.1f}%")
    return Interval(
        value=_percent(center),
        low=_percent(center - reach),
        high=_percent(center + reach),
        n=line.anchors,
        level=LEVEL,
        method="prediction interval of a line through the anchors' log odds",
        reliable=not notes,
        note="; ".join(notes) or None,
    )


def estimate(record: CalibrationRecord, win_rate: float, standard_error: float | None, n: int) -> dict[str, object]:
    """The estimate on the official scale for a record's `estimated`: numbers by name, and in words as `text`."""
    parts: dict[str, object] = {}
    words = []
    for line in record.maps:
        found = map_to_official(line, win_rate, standard_error or 0.0, n)
        parts |= {
            f"estimated_{line.target}": found.value,
            f"estimated_{line.target}_low": found.low,
            f"estimated_{line.target}_high": found.high,
        }
        name = line.target.replace("_", " ").replace("winrate", "win rate").replace("length c", "length-c")
        note = f"; {found.note}" if found.note else ""
        words.append(f"{name} {found.value:.1f} (95%: {found.shown()}{note})")
    correlation = record.rank_correlation
    ranks = f", rank correlation {correlation.value:.2f}" if correlation else ""
    head = "; ".join(words) or f"none: {len(record.anchors)} anchors are too few"
    parts["anchors"] = len(record.anchors)
    parts["text"] = f"estimated, never measured: {head}; from {len(record.anchors)} anchors{ranks}"
    return parts


def log_odds(rate: float, n: int) -> float:
    """Log odds of a rate in percent of `n` judgements, kept half a judgement away from 0 and 100."""
    share = min(max(rate / 100, 0.5 / n), 1 - 0.5 / n)
    return math.log(share / (1 - share))


def _percent(logit: float) -> float:
    return 100 / (1 + math.exp(-max(min(logit, 700), -700)))


def _anchor(anchor: Anchor, mine: Floats, theirs: Floats, counts: npt.NDArray[np.int64]) -> AnchorFacts:
    usable = ~np.isnan(mine)
    rate = float((mine[usable] - 1).mean() * 100)
    replicates = win_rate_replicates(mine[usable], counts[:, usable])
    both = usable & ~np.isnan(theirs)
    agreement = float((_verdict(mine[both]) == _verdict(theirs[both])).mean()) if both.any() else None
    return AnchorFacts(
        name=anchor.published.name,
        official_win_rate=anchor.published.win_rate,
        official_length_controlled_winrate=anchor.published.length_controlled_winrate,
        win_rate=rate_interval(rate, mine[usable] - 1, replicates),
        compared=int(both.sum()),
        agreement=agreement,
    )


def _known(anchors: Sequence[Anchor], target: str) -> list[float | None]:
    """Official scores; the length-controlled ones of incomplete models are wrong, and so not known."""
    return [
        None
        if target == "length_controlled_winrate" and anchor.published.n_total < COUNT
        else float(getattr(anchor.published, target))
        for anchor in anchors
    ]


def _interval(
    measure: Callable[[Floats, Floats, Floats], float],
    mine_AN: Floats,
    theirs_AN: Floats,
    counts: npt.NDArray[np.int64],
) -> Interval | None:
    """A measure of agreement over all pairs that both judged; resamples draw instructions, with all their anchors."""
    both = ~np.isnan(mine_AN) & ~np.isnan(theirs_AN)
    if not both.any():
        return None
    mine, theirs, columns = mine_AN[both], theirs_AN[both], np.nonzero(both)[1]
    value = measure(mine, theirs, np.ones(len(mine)))
    if not math.isfinite(value):
        return None
    drawn = counts[:, columns].astype(float)
    replicates = [measure(mine, theirs, weights) if weights.any() else math.nan for weights in drawn]
    return percentile_interval(value, np.array(replicates), len(set(columns.tolist())))


def _difference(mine: Floats, theirs: Floats, weights: Floats) -> float:
    return float(np.average(np.abs(mine - theirs), weights=weights))


def _verdict(preferences: Floats) -> npt.NDArray[np.int64]:
    return np.sign(preferences - 1.5).astype(np.int64) + 1


def _number(preference: float | None) -> float:
    return math.nan if preference is None else preference
