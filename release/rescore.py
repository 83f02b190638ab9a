"""Judgements as a release carries them, and scores computed again from them.

The texts stay out: AlpacaEval's instructions and reference answers are CC BY-NC 4.0. What is left (position, hash,
lengths, orders, preference, probability mass) is all that win rate and length-controlled win rate are made of.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pydantic import ValidationError

from kto_release.errors import DataError, HubError, ReleaseError, RunError, ScoreError
from kto_release.evaluate.scoring.alpaca import length_controlled, win_rates
from kto_release.evaluate.scoring.length_data import load_lc_data
from kto_release.judges.rows import Judged, read_rows
from kto_release.positions import COUNT, DIGITS, hashes, instruction_sha256, position
from kto_release.records import EvalRecord, Facts

SAME = 1e-6
"""Percent by which a score computed again may differ: other processors add up in another order."""


class ReleasedJudgement(Facts):
    """One judged pair of answers, without any text."""

    position: int
    """Of the instruction: AlpacaEval's own, 0 to 804, or its place in another set."""
    sample: int
    instruction_sha256: str
    """Of the instruction with its whitespace collapsed."""
    answer_length: int
    """Characters."""
    reference_length: int
    preference: float | None
    """In [1, 2], 2 being a win of the model; null: the judgement failed."""
    preferences: list[float | None]
    """The same with the reference shown first, then with the model shown first; empty: not known."""
    answer_mass: float | None
    flagged: bool
    """Whether screening flagged the answer, or the judgement may have been tampered with."""


class Rescored(NamedTuple):
    """A score computed again."""

    win_rate: float
    length_controlled_winrate: float | None
    no_length_control: str | None
    """Why there is none, where the record has one."""


def released(folder: Path, record: EvalRecord) -> list[ReleasedJudgement]:
    """The judgements in the folder of a results.json, stripped of their texts. Raises `RunError`."""
    path = folder / "annotations.json"
    try:
        rows = read_rows(path).rows
    except (DataError, ScoreError) as error:
        raise RunError(
            error.problem,
            expected="the judgements behind results.json, in alpaca_eval's format",
            todo="restore the file, or evaluate again",
        ) from None
    own = {text: place for place, text in enumerate(dict.fromkeys(row.instruction for row in rows))}
    places = [position(row.instruction) if record.is_alpaca_eval else own[row.instruction] for row in rows]
    if None in places:
        raise RunError(
            f"{str(path)!r}, row {places.index(None) + 1}: an instruction that is not AlpacaEval's",
            expected="the judgements behind results.json",
            todo="restore the file, or evaluate again",
        )
    return [_strip(row, place) for row, place in zip(rows, places, strict=True) if place is not None]


def _strip(row: Judged, place: int) -> ReleasedJudgement:
    return ReleasedJudgement(
        position=place,
        sample=row.sample,
        instruction_sha256=instruction_sha256(row.instruction),
        answer_length=len(row.output),
        reference_length=len(row.reference),
        preference=row.preference,
        preferences=list(row.preferences),
        answer_mass=row.mass,
        flagged=bool(row.flags or row.tampered),
    )


def write_jsonl(rows: Sequence[ReleasedJudgement]) -> str:
    """One line for each judgement."""
    return "".join(row.model_dump_json() + "\n" for row in rows)


def read_jsonl(path: Path) -> list[ReleasedJudgement]:
    """The judgements in a release. Raises `ReleaseError` with the line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(ReleasedJudgement.model_validate_json(line))
        except ValidationError as error:
            raise ReleaseError(f"{path.name}, line {number}: {error.errors()[0]['msg']}") from None
    return rows


def rescore(rows: Sequence[ReleasedJudgement], record: EvalRecord, lc_data: Path | None) -> Rescored:
    """Win rate and, where the record has one, length-controlled win rate, from the released rows alone.

    `lc_data` is AlpacaEval's df_gamed.csv; null takes it from the Hub. Raises `ScoreError`.
    """
    _refuse_misplaced(rows, is_alpaca_eval=record.is_alpaca_eval)
    scored = [row for row in rows if row.preference is not None]
    if len(scored) != record.n_total:
        raise ScoreError(f"{len(scored)} judgements are scored, and the record has {record.n_total}")
    by_position: dict[int, list[float]] = defaultdict(list)
    for row in sorted(scored, key=lambda row: (row.position, row.sample)):
        by_position[row.position].append(float(row.preference or 0))
    rate = win_rates([fmean(values) for values in by_position.values()]).win_rate
    if record.length_controlled_winrate is None:
        return Rescored(rate, None, None)
    try:
        return Rescored(rate, fmean(_length_controlled(scored, record, lc_data)), None)
    except (HubError, DataError) as error:
        return Rescored(rate, None, error.problem)


def _refuse_misplaced(rows: Sequence[ReleasedJudgement], *, is_alpaca_eval: bool) -> None:
    """Raise `ScoreError` where a row's hash is not that of the instruction at its position.

    In a set of one's own that is what the position's first row says.
    """
    known = {place: digits for digits, place in hashes().items()} if is_alpaca_eval else {}
    for number, row in enumerate(rows, 1):
        digits = row.instruction_sha256[:DIGITS]
        if known.setdefault(row.position, digits) != digits:
            raise ScoreError(
                f"judgement {number} is not of the instruction at position {row.position}: sha256 {digits}…, not "
                f"{known[row.position]}…"
            )


def _length_controlled(rows: Sequence[ReleasedJudgement], record: EvalRecord, lc_data: Path | None) -> Iterator[float]:
    """The rate of each sample of the answers."""
    data = load_lc_data(lc_data)
    if record.lc_data_sha256 is not None and data.sha256 != record.lc_data_sha256:
        raise DataError(
            f"this data for length control is not what was scored with (sha256 {data.sha256[:12]}…, not "
            f"{record.lc_data_sha256[:12]}…)"
        )
    for sample in sorted({row.sample for row in rows}):
        placed = sorted((row for row in rows if row.sample == sample), key=lambda row: row.position)
        if [row.position for row in placed] != list(range(COUNT)):
            raise ScoreError(f"a length-controlled rate needs each of the {COUNT} instructions once")
        differences = [float(row.reference_length - row.answer_length) for row in placed]
        yield length_controlled([float(row.preference or 0) for row in placed], differences, data).rate
