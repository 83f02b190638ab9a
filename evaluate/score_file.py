"""Score judgements that exist already: `kto-release eval --annotations FILE --output DIR`.

FILE is alpaca_eval's annotations.json (also .xz or .gz): an object for each instruction, with `instruction`,
`output_1` (the reference's answer), `output_2` (the model's) and `preference`. DIR then holds the same rows in
AlpacaEval's order (annotations.json), a report to read (report.html) and, written last, results.json.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.errors import DataError, RecipeError, RunError, ScoreError
from kto_release.evaluate.instructions import read_rows
from kto_release.evaluate.report.page import write_report
from kto_release.evaluate.report.summary import Compared, show, to_record
from kto_release.evaluate.scoring import alpaca
from kto_release.evaluate.scoring.length_data import fetch_lc_data, read_lc_data
from kto_release.evaluate.scoring.placed import check_preference, place
from kto_release.evaluate.scoring.scores import score
from kto_release.evaluate.scoring.screening import screen
from kto_release.files import write_atomically, write_record
from kto_release.judges.rows import Judged
from kto_release.positions import position
from kto_release.records import EvalRecord, JudgeFacts

UNKNOWN_JUDGE = "recorded"
"""Name of a judge that neither the rows nor the user name."""


class Annotations(NamedTuple):
    """A file of recorded judgements."""

    rows: list[Judged]
    """In the order of the file."""
    generator: str | None
    reference: str | None
    annotator: str | None
    """The judge that the rows name."""


def score_annotations(
    path: Path,
    output: Path,
    *,
    lc_data: Path | None = None,
    length_control: bool = True,
    allow_partial: bool = False,
    judge: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> EvalRecord:
    """Score the judgements in `path`, and write annotations.json, report.html and results.json to the folder `output`.

    The data for length control comes from the file `lc_data`, else from the Hub; with `length_control` false there is
    no length-controlled rate. `judge` names a judge that the rows don't name.
    Raises `KtoReleaseError` where the judgements can't be scored; then nothing is written.
    """
    nearest = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise RunError(f"{str(nearest)!r} is a file", expected="a folder, or nothing", todo="name another --output")
    annotations = read_annotations(path)
    _refuse_exchanged(annotations, path)
    facts = _judge(annotations, judge)
    foreign = all(position(row.instruction) is None for row in annotations.rows)
    expected = [row.instruction for row in annotations.rows if row.sample == 0] if foreign else None
    placed = place(annotations.rows, expected, allow_partial=allow_partial)
    data = None
    if length_control and placed.is_alpaca_eval and placed.complete:  # else there is no such rate to give
        data = read_lc_data(lc_data) if lc_data else fetch_lc_data()
    rows = placed.rows
    scores = score(rows, expected=expected, lc_data=data, bootstrap=bootstrap, seed=seed, allow_partial=allow_partial)
    screening = screen([row.instruction for row in rows], [row.output for row in rows], [row.reference for row in rows])
    record = to_record(
        scores,
        _compared(annotations, rows, path, is_alpaca_eval=scores.is_alpaca_eval),
        facts,
        lc_data=data,
        screening=screening.counts,
        gamed=screening.gamed,
    )
    write_atomically(output / "annotations.json", _as_json(annotations, rows, facts))
    report = write_report(output, record, rows, flags=screening.flags)
    write_record(output / "results.json", record)
    show(record)
    console.say(f"results: {output / 'results.json'}")
    console.say(f"report: {report}")
    return record


def read_annotations(path: Path) -> Annotations:
    """The judgements in a file in alpaca_eval's format. Raises `DataError` or `ScoreError` with row numbers."""
    plain = read_rows(path)
    for key in ("instruction", "output_1", "output_2"):
        _refuse(path, f"no text under {key!r}", [n for n, row in enumerate(plain, 1) if not is_text(row.get(key))])
    _refuse(path, "no 'preference'", [n for n, row in enumerate(plain, 1) if "preference" not in row])
    rows = [_judged(row, f"{path.name}, row {number}") for number, row in enumerate(plain, 1)]
    return Annotations(rows, *(_only(path, plain, key) for key in ("generator_2", "generator_1", "annotator")))


def is_text(value: object) -> bool:
    """Whether it is text that can be written to a file: JSON can spell half a surrogate pair, which is none."""
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value


def official_judge_facts() -> JudgeFacts:
    """The judge behind AlpacaEval 2.0's leaderboard, as its recorded judgements know it."""
    return _facts(alpaca.OFFICIAL_JUDGE, official=True)


def _judged(row: dict[str, Any], where: str) -> Judged:
    preference = row["preference"]
    if isinstance(preference, float) and math.isnan(preference):
        preference = None  # how pandas spells null
    if preference == 0 and not isinstance(preference, bool):
        preference = 1.5  # alpaca_eval's other spelling of a draw
    check_preference(preference, where)
    sample = row.get("sample", 0)
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise ScoreError(f"{where}: 'sample' is {sample!r}", expected="a number from 0, or nothing")
    dataset, mass = row.get("dataset"), row.get("answer_mass")
    orders = row.get("preferences") or []
    if not isinstance(orders, list):
        raise ScoreError(f"{where}: 'preferences' is {orders!r}", expected="a list of two, or nothing")
    for value in orders:
        check_preference(value, f"{where}, 'preferences'")
    return Judged(
        instruction=row["instruction"],
        dataset=dataset if is_text(dataset) and dataset else None,
        output=row["output_2"],
        reference=row["output_1"],
        preference=None if preference is None else float(preference),
        preferences=tuple(orders),
        mass=float(mass) if isinstance(mass, int | float) and 0 <= mass <= 1 else None,
        failure=None if preference is not None else str(row.get("failure") or "no preference is recorded"),
        sample=sample,
    )


def _refuse_exchanged(annotations: Annotations, path: Path) -> None:
    """Raise `ScoreError` where the reference stands in the model's place: its score would be the opposite one."""
    if annotations.generator == alpaca.OFFICIAL_REFERENCE != (annotations.reference or alpaca.OFFICIAL_REFERENCE):
        raise ScoreError(
            f"{path.name}: 'generator_2' is AlpacaEval's reference, {alpaca.OFFICIAL_REFERENCE!r}, and 'generator_1' "
            f"is {annotations.reference!r}",
            expected="the reference's answers under 'output_1', and the model's under 'output_2'",
            todo="exchange the two, and take 3 minus each preference",
        )


def _only(path: Path, rows: Sequence[dict[str, Any]], key: str) -> str | None:
    """The one name that all rows give under `key`; null where none gives one."""
    names = {row.get(key) for row in rows if isinstance(row.get(key), str | None)}
    if len(names) > 1 or any(not isinstance(row.get(key), str | None) for row in rows):
        shown = ", ".join(sorted(repr(name) for name in names)[:5])
        raise ScoreError(
            f"{path.name}: more than one {key!r}: {shown}",
            expected="judgements of one model against one reference by one judge",
            todo="put each into a file of its own",
        )
    return names.pop() or None


def _judge(annotations: Annotations, named: str | None) -> JudgeFacts:
    found = annotations.annotator
    if found and named and found != named:
        raise RecipeError(
            f"--judge {named!r}: these judgements name another judge, {found!r}",
            todo="leave out --judge",
        )
    complete = all(position(row.instruction) is not None for row in annotations.rows)
    official = (
        (found or named) == alpaca.OFFICIAL_JUDGE
        and complete
        and (annotations.reference in (None, alpaca.OFFICIAL_REFERENCE))
    )
    return _facts(found or named or UNKNOWN_JUDGE, official=official)


def _facts(name: str, *, official: bool) -> JudgeFacts:
    return JudgeFacts(
        kind="recorded",
        model=alpaca.OFFICIAL_MODEL if official else name,
        name=name,
        endpoint=None,
        prompt="alpaca_eval" if official else "as recorded",
        prompt_sha256=sha256_of(alpaca.official_prompt() if official else name),
        swap=False,
        parameters={},
        official=official,
    )


def _compared(annotations: Annotations, rows: Sequence[Judged], path: Path, *, is_alpaca_eval: bool) -> Compared:
    first = [row for row in rows if row.sample == 0]
    digest = sha256_of([row.instruction for row in first])
    return Compared(
        model=None,
        answers_by=annotations.generator or path.name.split(".")[0],
        instructions="alpaca_eval" if is_alpaca_eval else f"instructions-{digest[:8]}",
        instructions_sha256=digest,
        instructions_revision=None,
        reference=annotations.reference or "reference",
        reference_sha256=sha256_of([[row.instruction, row.reference] for row in first]),
        generation=None,
    )


def _as_json(annotations: Annotations, rows: Sequence[Judged], judge: JudgeFacts) -> str:
    plain = [
        {
            "instruction": row.instruction,
            "dataset": row.dataset,
            "output_1": row.reference,
            "generator_1": annotations.reference,
            "output_2": row.output,
            "generator_2": annotations.generator,
            "annotator": judge.name,
            "preference": row.preference,
            **({"sample": row.sample} if row.sample else {}),
        }
        for row in rows
    ]
    return json.dumps(plain, ensure_ascii=False, indent=1) + "\n"


def _refuse(path: Path, problem: str, rows: Sequence[int]) -> None:
    if rows:
        shown = ", ".join(map(str, rows[:10])) + (", …" if len(rows) > 10 else "")
        raise DataError(
            f"{path.name}: {problem} in {len(rows)} rows: {shown}",
            expected="alpaca_eval's annotations.json: instruction, output_1, output_2 and preference in every row",
        )
