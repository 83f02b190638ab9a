"""Is A better than B? Two evaluations compared instruction by instruction.

Both answered the same instructions, were compared with the same answers, and were judged by the same judge in the same
way: only then is their difference the models'. It is paired, since hard instructions are hard for both: that makes it
far surer than the two intervals suggest. The win rates' p-value is a sign-flip test's, which holds its level at any
number of instructions; the length-controlled rates' comes from the bootstrap of their interval. Where p-value and
interval disagree, the two are not distinguishable. A doubt about either evaluation is one about their difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kto_release.errors import ScoreError
from kto_release.evaluate.scoring.alpaca import length_controlled
from kto_release.evaluate.scoring.few import difference_interval
from kto_release.evaluate.scoring.intervals import (
    length_controlled_replicates,
    length_model,
    percentile_interval,
    resamples,
    win_rate_replicates,
)
from kto_release.evaluate.scoring.length_data import LcData
from kto_release.evaluate.scoring.verdict import verdict_of
from kto_release.judges.rows import Judged
from kto_release.positions import COUNT, collapsed, position
from kto_release.records import EvalRecord, Interval, Verdict

RESAMPLES = 10_000
"""For the win rate: the smallest p-value is 2 in 10,001."""
REFITS = 1000
"""For the length-controlled rate: the smallest p-value is 2 in 1,001."""

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Evaluation(NamedTuple):
    """A finished evaluation: its record and its judged rows."""

    record: EvalRecord
    rows: list[Judged]
    label: str | None = None
    """What it is called beside another one whose answers are by a model of the same name."""

    @property
    def name(self) -> str:
        """Whose answers were judged."""
        return self.label or self.record.who


class Difference(NamedTuple):
    """A paired difference: A minus B, in percentage points."""

    interval: Interval
    p_value: float
    """Two-sided: how likely resamples of no difference are to differ this much, at least."""

    @property
    def verdict(self) -> str:
        """In words, for A: a difference takes a p-value below 0.05 and an interval that does not hold 0."""
        if self.p_value >= 0.05 or self.interval.low <= 0 <= self.interval.high:
            return "not distinguishable"
        return "better" if self.interval.low > 0 else "worse"


class Comparison(NamedTuple):
    """A against B."""

    first: str
    second: str
    win_rate: Difference
    length_controlled_winrate: Difference | None
    no_length_control: str | None
    """Why there is no length-controlled difference."""
    instructions: int
    """How many are compared."""
    verdict: Verdict
    """On the win rate, with the doubts about either evaluation."""


def compare(
    first: Evaluation,
    second: Evaluation,
    *,
    lc_data: LcData | None,
    allow_partial: bool = False,
    seed: int = 0,
    absent: str = "no data for length control was given",
) -> Comparison:
    """The paired difference of two evaluations of the same instructions.

    With `allow_partial` only the instructions that both hold a judgement of are compared. Raises `ScoreError`.
    """
    refuse_incomparable(first, second)
    pairs = paired(first, second, allow_partial=allow_partial)
    preferences = [np.array([_mean_preference(pair[side]) for pair in pairs]) for side in (0, 1)]
    counts = resamples(len(pairs), RESAMPLES, seed)
    rates = [win_rate_replicates(values, counts) for values in preferences]
    gains = preferences[0] - preferences[1]
    verdict = verdict_of(
        gains, difference_interval(gains, rates[0] - rates[1], _wins(preferences)), [*doubts(first), *doubts(second)]
    )
    controlled = None
    if not first.record.is_alpaca_eval:
        absent = "the instructions are not AlpacaEval's"
    elif len(pairs) < COUNT or first.record.partial or second.record.partial:
        absent = "instructions are missing"
    elif lc_data is not None:
        controlled = _length_controlled(pairs, lc_data, counts[:REFITS])
        absent = "every answer of one of them differs from the reference's by the same length"
    win_rate = Difference(verdict.points, verdict.p_value)
    missing = None if controlled else absent
    return Comparison(first.name, second.name, win_rate, controlled, missing, len(pairs), verdict)


def doubts(evaluation: Evaluation) -> list[str]:
    """Why an evaluation is not to be relied on, with its name."""
    return [f"{evaluation.name}: {reason}" for reason in evaluation.record.doubts]


def difference(value: float, replicates: Floats, n: int, wins: float | None = None) -> Difference:
    """A difference with its interval, and the p-value that goes with it."""
    usable = replicates[np.isfinite(replicates)]
    below, above = np.sum(usable <= 0), np.sum(usable >= 0)
    p_value = min(1.0, 2 * (min(below, above) + 1) / (len(usable) + 1))
    return Difference(percentile_interval(value, replicates, n, wins=wins), float(p_value))


def refuse_incomparable(first: Evaluation, second: Evaluation) -> None:
    """Raise `ScoreError` unless judge, prompt, order, instructions and reference are the same."""
    a, b = first.record, second.record
    facts = [
        ("judge", a.judge.settings, b.judge.settings),
        ("prompt of the judge", a.judge.prompt_sha256[:8], b.judge.prompt_sha256[:8]),
        ("orders", "both" if a.judge.swap else "one", "both" if b.judge.swap else "one"),
        ("instructions", _set(a), _set(b)),
        # One model can have two names, as a file's and as a run's: what counts is what it answered.
        ("reference", a.reference, a.reference if a.reference_sha256 == b.reference_sha256 else b.reference),
    ]
    differing = [(what, one, other) for what, one, other in facts if one != other]
    if a.judge.official and b.judge.official:
        # The same judgements can be recorded under the annotator's or under the model's name.
        differing = [fact for fact in differing if fact[0] in ("instructions", "reference")]
    if differing:
        raise ScoreError(
            f"{first.name} and {second.name} can't be compared:\n"
            + "\n".join(f"  - {what}: {one!r} there, {other!r} here" for what, one, other in differing),
            expected="the same instructions, reference, judge, prompt and order, so that the difference is the models'",
            todo="evaluate both with one recipe's eval section; a folder in eval.reference (--set eval.reference=RUN) "
            "takes the answers that RUN was compared with",
        )


def _length_controlled(pairs: Sequence["_Pair"], data: LcData, counts: Counts) -> Difference | None:
    rates, replicates = [], []
    for side in (0, 1):
        samples = [pair[side] for pair in pairs]
        per_sample = [_one_sample(rows, data, counts) for rows in zip(*samples, strict=True)]
        fitted = [found for found in per_sample if found is not None]
        if len(fitted) < len(per_sample):
            return None
        rates.append(float(np.mean([rate for rate, _ in fitted])))
        replicates.append(np.mean([values for _, values in fitted], axis=0))
    wins = min(rates) / 100 * COUNT if sum(rates) < 100 else max(rates) / 100 * COUNT
    return difference(rates[0] - rates[1], replicates[0] - replicates[1], COUNT, wins)


def _one_sample(rows: Sequence[Judged], data: LcData, counts: Counts) -> tuple[float, Floats] | None:
    preferences = np.array([row.preference for row in rows], float)
    differences = np.array([len(row.reference) - len(row.output) for row in rows], float)
    if np.ptp(differences) == 0:
        return None
    fit = length_controlled(preferences.tolist(), differences.tolist(), data)
    model = length_model(preferences, differences, data, fit.regularization, fit.coefficients)
    return fit.rate, length_controlled_replicates(model, counts)


_Pair = tuple[list[Judged], list[Judged]]
"""The rows of one instruction, of A and of B, by sample."""


def paired(first: Evaluation, second: Evaluation, *, allow_partial: bool) -> list[_Pair]:
    """The rows of each instruction that both judged, in AlpacaEval's order or their texts'. Raises `ScoreError`."""
    sides = [_by_instruction(evaluation) for evaluation in (first, second)]
    common = sides[0].keys() & sides[1].keys()
    apart = len(sides[0].keys() | sides[1].keys()) - len(common)
    if not common:
        raise ScoreError(f"{first.name} and {second.name} have no instruction in common")
    if apart and not allow_partial:
        raise ScoreError(
            f"{apart} instructions are judged for only one of {first.name} and {second.name}",
            expected="the same instructions in both",
            todo="complete the other, or pass --allow-partial to compare what both hold",
        )
    # AlpacaEval's order is what length control needs; any fixed order serves an own set.
    order = sorted(common, key=lambda text: (position(text) or 0, text))
    pairs = [(sides[0][text], sides[1][text]) for text in order]
    for text, pair in zip(order, pairs, strict=True):
        if pair[0][0].reference != pair[1][0].reference:
            raise ScoreError(
                f"{first.name} and {second.name} are compared with different answers to {text[:60]!r}",
                expected="the same reference for both",
                todo="evaluate both against one reference",
            )
    return pairs


def _by_instruction(evaluation: Evaluation) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {}
    for row in sorted(evaluation.rows, key=lambda row: row.sample):
        if row.preference is not None:
            key = collapsed(row.instruction) if evaluation.record.is_alpaca_eval else row.instruction
            found.setdefault(key, []).append(row)
    return found


def _mean_preference(rows: Sequence[Judged]) -> float:
    return float(np.mean([row.preference for row in rows if row.preference is not None]))


def _wins(preferences: Sequence[Floats]) -> float:
    """The wins of whichever is nearer to 0 or 100%: it decides whether the interval can be relied on."""
    wins = [float((values - 1).sum()) for values in preferences]
    return min(wins, key=lambda count: min(count, len(preferences[0]) - count))


def setup(record: EvalRecord) -> tuple[str, ...]:
    """What two evaluations must share to be compared instruction by instruction.

    That is less than one scale: which instructions both hold, and whether the reference's answers are the same, is
    seen row by row.
    """
    return record.scale._replace(instructions=_set(record), reference=record.reference)


def _set(record: EvalRecord) -> str:
    return "alpaca_eval" if record.is_alpaca_eval else record.instructions
