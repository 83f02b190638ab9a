"""comparison.json: which evaluations were compared, against which reference, and what each pair of them came to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kto_release.evaluate.scoring.paired import Comparison, Difference, Evaluation
from kto_release.judges.rows import scored
from kto_release.provenance import environment, now
from kto_release.records import Environment, Facts, Interval, JudgeFacts, Verdict


class ComparedFacts(Facts):
    """One of the evaluations."""

    name: str
    """Unlike every other's in this comparison."""
    folder: str | None
    """Where its results.json is; null for the reference itself."""
    finished: str
    model_sha256: str | None
    """Digest of the weights; null where they are not known."""
    score: str
    win_rate: Interval | None
    answers: int
    """That were judged."""
    doubts: list[str]
    """What speaks against its score: it speaks against every comparison with it."""


class DifferenceFacts(Facts):
    """A paired difference, in percentage points."""

    points: Interval
    p_value: float
    p_holm: float
    """The p-value for as many pairs as are compared here, by Holm's method."""
    verdict: str
    """Of the first: better, worse or not distinguishable; by the p-value of this pair alone."""


class PairFacts(Facts):
    """One against another."""

    first: str
    second: str
    instructions: int
    verdict: Verdict
    """Of the first, by the win rate, with the doubts about either of the two."""
    win_rate: DifferenceFacts
    length_controlled_winrate: DifferenceFacts | None
    no_length_control: str | None


class ComparisonRecord(Facts):
    """`comparison.json`."""

    kind: Literal["comparison"] = "comparison"
    finished: str
    instructions: str
    instructions_sha256: str
    reference: str
    reference_sha256: str
    """Digest of the answers that all were compared with: later evaluations against the same can stand beside these."""
    judge: JudgeFacts
    compared: list[ComparedFacts]
    pairs: list[PairFacts]
    environment: Environment


def to_record(
    evaluations: Sequence[Evaluation], folders: Sequence[Path | None], comparisons: Sequence[Comparison]
) -> ComparisonRecord:
    """The record of the comparisons of these evaluations, found in these folders."""
    first = evaluations[0].record
    win_rates = _differences([one.win_rate for one in comparisons])
    controlled = _differences([one.length_controlled_winrate for one in comparisons])
    return ComparisonRecord(
        finished=now(),
        instructions=first.instructions,
        instructions_sha256=first.instructions_sha256,
        reference=first.reference,
        reference_sha256=first.reference_sha256,
        judge=first.judge,
        compared=[_facts(one, folder) for one, folder in zip(evaluations, folders, strict=True)],
        pairs=[
            _pair(comparison, win_rate, other)
            for comparison, win_rate, other in zip(comparisons, win_rates, controlled, strict=True)
            if win_rate is not None
        ],
        environment=environment(),
    )


def _facts(evaluation: Evaluation, folder: Path | None) -> ComparedFacts:
    record = evaluation.record
    return ComparedFacts(
        name=evaluation.name,
        folder=None if folder is None else str(folder),
        finished=record.finished,
        model_sha256=record.model.sha256 if record.model else None,
        score=record.score,
        win_rate=record.intervals.get("win_rate"),
        answers=len(scored(evaluation.rows)),
        doubts=record.doubts,
    )


def _pair(comparison: Comparison, win_rate: DifferenceFacts, controlled: DifferenceFacts | None) -> PairFacts:
    return PairFacts(
        first=comparison.first,
        second=comparison.second,
        instructions=comparison.instructions,
        verdict=comparison.verdict,
        win_rate=win_rate,
        length_controlled_winrate=controlled,
        no_length_control=comparison.no_length_control,
    )


def _differences(found: Sequence[Difference | None]) -> list[DifferenceFacts | None]:
    """Each with its p-value held against the number of them: Holm's step-down method."""
    measured = sorted((one.p_value, place) for place, one in enumerate(found) if one is not None)
    adjusted, least = dict[int, float](), 0.0
    for rank, (p_value, place) in enumerate(measured):
        least = max(least, min(1.0, p_value * (len(measured) - rank)))
        adjusted[place] = least
    return [
        None
        if one is None
        else DifferenceFacts(points=one.interval, p_value=one.p_value, p_holm=adjusted[place], verdict=one.verdict)
        for place, one in enumerate(found)
    ]
