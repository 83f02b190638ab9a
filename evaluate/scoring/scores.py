"""From judged rows to scores: placed by instruction, checked for completeness, then alpaca_eval's own arithmetic."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kto_release.errors import ScoreError
from kto_release.evaluate.scoring.alpaca import length_controlled, win_rates
from kto_release.evaluate.scoring.few import rate_interval
from kto_release.evaluate.scoring.intervals import (
    length_controlled_replicates,
    length_model,
    percentile_interval,
    resamples,
    win_rate_replicates,
)
from kto_release.evaluate.scoring.length_data import LcData
from kto_release.evaluate.scoring.own_length import own_length_control
from kto_release.evaluate.scoring.placed import Placed, place
from kto_release.evaluate.scoring.variance import variance
from kto_release.judges.rows import Judged
from kto_release.positions import COUNT
from kto_release.records import INTERVAL_DOUBT, OWN_LENGTH, Interval

LARGE_BIAS = 0.1
"""Mean preference for one place beyond which a judge is called biased."""
LOW_CONSISTENCY = 0.6
"""Share of pairs judged alike in both orders below which a judge is called inconsistent; a coin's is one half."""

BOUNDS = ("value", "low", "high")

Floats = npt.NDArray[np.float64]


class Scores(NamedTuple):
    """The scores of one set of judged rows, named and defined as in alpaca_eval; rates in percent."""

    win_rate: float
    standard_error: float | None
    """Standard error of win_rate over instructions; null with a single one."""
    discrete_win_rate: float
    length_controlled_winrate: float | None
    no_length_control: str | None
    """Why there is no length-controlled rate; null where there is one."""
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    """Judgements that are scored."""
    n_missing: int
    """Instructions without a judgement."""
    n_failed: int
    """Judgements that were tried and failed."""
    avg_length: int
    """Mean characters of the model's answers, cut to an integer as alpaca_eval does."""
    is_alpaca_eval: bool
    partial: bool
    """Whether instructions are missing or failed."""
    regularization: float | None
    """The C that cross-validation chose for the length-controlled fit: the resamples are refitted with it."""
    intervals: dict[str, Interval]
    """win_rate, discrete_win_rate, and length_controlled_winrate where there is one."""
    by_dataset: dict[str, Interval]
    """Win rate within each collection of instructions."""
    variance: dict[str, float | None]
    """Squared standard error of win_rate (squared percent), by `variance`: total, instructions, generation, judge."""
    position_bias: float | None
    """Mean preference for the first place, minus one half; null where only one order was asked."""
    self_consistency: float | None
    """Share of pairs in which both orders favour the same answer."""
    answer_mass: dict[str, float] | None
    """mean, min, and low_share: the share of rows below the limit."""
    unreliable_because: list[str]
    """In words; empty: nothing speaks against the score."""
    points: Interval
    """win_rate and its interval as points above one half."""
    gains: tuple[float, ...]
    """(N): each instruction's mean preference minus 1.5, in [-0.5, 0.5]."""


def score(
    rows: Sequence[Judged],
    *,
    expected: Sequence[str] | None,
    lc_data: LcData | None,
    bootstrap: int = 1000,
    seed: int = 0,
    allow_partial: bool = False,
    min_answer_mass: float = 0.5,
    votes: int = 1,
) -> Scores:
    """The scores of `rows`.

    `expected` are the instructions of an own set; null: AlpacaEval's 805, where each row is placed by the hash of its
    instruction. A length-controlled rate is given for all of AlpacaEval's instructions only, and with `lc_data`.
    Where rows hold several samples of an instruction, its preference is their mean, and the length-controlled rate is
    the mean of each sample's own. `votes` is how often the judge was asked each question.

    Raises `ScoreError` where rows are duplicated or foreign, a preference is outside [1, 2], or, without
    `allow_partial`, instructions are missing or their judgement failed.
    """
    placed = place(rows, expected, allow_partial=allow_partial)
    good = [(number, row) for number, row in zip(placed.places, placed.rows, strict=True) if row.preference is not None]
    if not good:
        raise ScoreError("no judgement can be scored", todo="look at the reasons of the failed ones")
    kept = [row for _, row in good]
    means = _means([number for number, _ in good], _preferences(kept))
    whole, by_instruction = win_rates(_preferences(kept)), win_rates(means.tolist())
    counts = resamples(len(means), bootstrap, seed)
    win_interval = rate_interval(by_instruction.win_rate, means - 1, win_rate_replicates(means, counts))
    control = _length_control(placed, lc_data, counts)
    discrete = _means([number for number, _ in good], [1 + _discrete(row) for row in kept])
    intervals = {
        "win_rate": win_interval,
        "discrete_win_rate": rate_interval(
            whole.discrete_win_rate, discrete - 1, win_rate_replicates(discrete, counts)
        ),
    }
    if control.interval is not None:
        intervals["length_controlled_winrate"] = control.interval
    own_length = None if placed.is_alpaca_eval else _own_length(good, means, counts)
    if own_length is not None:
        intervals[OWN_LENGTH] = own_length
    mass = _answer_mass(kept, min_answer_mass)
    bias, consistency = _both_orders(kept)
    return Scores(
        win_rate=by_instruction.win_rate,
        standard_error=by_instruction.standard_error,
        discrete_win_rate=whole.discrete_win_rate,
        length_controlled_winrate=control.interval.value if control.interval else None,
        no_length_control=control.absent,
        n_wins=whole.n_wins,
        n_wins_base=whole.n_wins_base,
        n_draws=whole.n_draws,
        n_total=whole.n_total,
        n_missing=len(placed.missing),
        n_failed=len(placed.failed),
        avg_length=int(np.mean([len(row.output) for row in kept])),
        is_alpaca_eval=placed.is_alpaca_eval,
        partial=not placed.complete,
        regularization=control.regularization,
        intervals=intervals,
        by_dataset=_by_dataset(good, bootstrap, seed),
        variance=variance(good, by_instruction.standard_error, votes),
        position_bias=bias,
        self_consistency=consistency,
        answer_mass=mass,
        unreliable_because=[*_doubts(placed, intervals, mass, min_answer_mass, bias, consistency)],
        points=win_interval.model_copy(update={name: getattr(win_interval, name) - 50 for name in BOUNDS}),
        gains=tuple((means - 1.5).tolist()),
    )


def _own_length(good: Sequence[tuple[int, Judged]], means: Floats, counts: npt.NDArray[np.int64]) -> Interval | None:
    """Of several samples an instruction has their mean preference at their mean difference."""
    lengths = defaultdict(list)
    for number, row in good:
        lengths[number].append(len(row.reference) - len(row.output))
    return own_length_control(means.tolist(), [float(np.mean(values)) for values in lengths.values()], counts)


def _discrete(row: Judged) -> float:
    """A win as 1, a draw as one half, a loss as 0: alpaca_eval's discrete win rate is their mean."""
    preference = row.preference or 0.0
    return 0.5 if preference == 1.5 else float(preference > 1.5)


class _LengthControlled(NamedTuple):
    interval: Interval | None
    regularization: float | None
    absent: str | None


def _length_control(placed: Placed, data: LcData | None, counts: npt.NDArray[np.int64]) -> _LengthControlled:
    if not placed.is_alpaca_eval:
        return _LengthControlled(None, None, "the instructions are not AlpacaEval's")
    if not placed.complete:
        return _LengthControlled(None, None, "instructions are missing, and the regression needs all of them")
    if data is None:
        return _LengthControlled(None, None, "no data for length control was given")
    samples = 1 + max(row.sample for row in placed.rows)
    rates, replicates, chosen = [], [], []
    for sample in range(samples):
        rows = [row for row in placed.rows if row.sample == sample]
        differences = np.array([len(row.reference) - len(row.output) for row in rows], float)
        if np.ptp(differences) == 0:
            return _LengthControlled(None, None, "every answer differs from the reference's by the same length")
        preferences = _preferences(rows)
        fit = length_controlled(preferences, differences.tolist(), data)
        model = length_model(np.array(preferences), differences, data, fit.regularization, fit.coefficients)
        rates.append(fit.rate)
        chosen.append(fit.regularization)
        replicates.append(length_controlled_replicates(model, counts))
    rate = float(np.mean(rates))
    interval = percentile_interval(rate, np.mean(replicates, axis=0), COUNT, wins=rate / 100 * COUNT)
    return _LengthControlled(interval, chosen[0], None)


def _preferences(rows: Iterable[Judged]) -> list[float]:
    return [row.preference for row in rows if row.preference is not None]


def _means(places: Sequence[int], preferences: Sequence[float]) -> Floats:
    """Mean preference of each instruction, in the order of the instructions."""
    grouped = defaultdict(list)
    for number, preference in zip(places, preferences, strict=True):
        grouped[number].append(preference)
    return np.array([values[0] if len(values) == 1 else math.fsum(values) / len(values) for values in grouped.values()])


def _by_dataset(good: Sequence[tuple[int, Judged]], bootstrap: int, seed: int) -> dict[str, Interval]:
    grouped: dict[str, list[tuple[int, Judged]]] = defaultdict(list)
    for number, row in good:
        grouped[row.dataset or ""].append((number, row))
    if grouped.keys() == {""}:
        return {}
    intervals = {}
    for name, members in sorted(grouped.items()):
        means = _means([number for number, _ in members], _preferences(row for _, row in members))
        rates = win_rate_replicates(means, resamples(len(means), bootstrap, seed))
        intervals[name or "other"] = rate_interval(float((means - 1).mean() * 100), means - 1, rates)
    return intervals


def _both_orders(rows: Sequence[Judged]) -> tuple[float | None, float | None]:
    """Position bias and self-consistency over the rows that were judged in both orders."""
    pairs = np.array([row.preferences for row in rows if _is_pair(row.preferences)], float)
    if not len(pairs):
        return None, None
    reference_first, model_first = pairs.T
    bias = float(np.mean(model_first - reference_first) / 2)
    return bias, float(np.mean(np.sign(reference_first - 1.5) == np.sign(model_first - 1.5)))


def _is_pair(preferences: Sequence[float | None]) -> bool:
    return len(preferences) == 2 and None not in preferences


def _answer_mass(rows: Sequence[Judged], limit: float) -> dict[str, float] | None:
    masses = [row.mass for row in rows if row.mass is not None]
    if not masses:
        return None
    low = sum(mass < limit for mass in masses) / len(masses)
    return {"mean": math.fsum(masses) / len(masses), "min": min(masses), "low_share": low}


def _doubts(
    placed: Placed,
    intervals: dict[str, Interval],
    mass: dict[str, float] | None,
    min_answer_mass: float,
    bias: float | None,
    consistency: float | None,
) -> Iterable[str]:
    if not placed.complete:
        lost = len(placed.missing) + len(placed.failed)
        yield f"partial: {lost} of {placed.expected} judgements are missing or failed"
    for key, interval in intervals.items():
        if key != OWN_LENGTH and not interval.reliable and interval.note:
            yield f"{INTERVAL_DOUBT}: {interval.note}"
            break
    if mass is not None and mass["mean"] < min_answer_mass:
        yield (
            f"the judge puts only {mass['mean']:.0%} of its probability on the answer letters "
            f"(below {min_answer_mass:.0%}): it does not follow the question"
        )
    if bias is not None and abs(bias) > LARGE_BIAS:
        favoured = "first" if bias > 0 else "second"
        yield f"the judge prefers the answer shown {favoured}, by {abs(bias):.0%} on average"
    if consistency is not None and consistency < LOW_CONSISTENCY:
        yield f"the judge favours the same answer in both orders in {consistency:.0%} of the pairs; a coin, in 50%"
