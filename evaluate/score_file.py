"""Score judgements that exist already: `kto-release eval --annotations FILE --output DIR`.

FILE is alpaca_eval's annotations.json (also .xz or .gz): an object for each instruction, with `instruction`,
`output_1` (the reference's answer), `output_2` (the model's) and `preference`. DIR then holds the same rows in
AlpacaEval's order (annotations.json), a report to read (report.html) and, written last, results.json.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.errors import RecipeError, RunError, ScoreError
from kto_release.evaluate.record import Compared, to_record
from kto_release.evaluate.report.page import write_report
from kto_release.evaluate.report.summary import show
from kto_release.evaluate.scoring.length_data import LcData, load_lc_data
from kto_release.evaluate.scoring.placed import place
from kto_release.evaluate.scoring.scores import Scores, score
from kto_release.evaluate.scoring.screening import Screening, screen
from kto_release.files import write_record
from kto_release.judges.official import (
    OFFICIAL_JUDGE,
    OFFICIAL_REFERENCE,
    official_judge_facts,
    recorded_judge_facts,
)
from kto_release.judges.rows import Judged, Rows, read_rows, write_rows
from kto_release.positions import position
from kto_release.records import EvalRecord, JudgeFacts
from kto_release.templates.thoughts import without_thoughts

UNKNOWN_JUDGE = "recorded"
"""Name of a judge that neither the rows nor the user name."""


def score_annotations(
    annotations: Path,
    output: Path,
    *,
    lc_data: Path | None = None,
    length_control: bool = True,
    allow_partial: bool = False,
    judge: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> EvalRecord:
    """Score the judgements in a file; annotations.json, report.html and results.json go to the folder `output`.

    The data for length control comes from the file `lc_data`, else from the Hub; with `length_control` false there is
    no length-controlled rate. `judge` names a judge that the rows don't name.
    Raises `KtoReleaseError` where the judgements can't be scored; then nothing is written.
    """
    nearest = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise RunError(f"{str(nearest)!r} is a file", expected="a folder, or nothing", todo="name another --output")
    judged = read_rows(annotations)
    _refuse_exchanged(judged, annotations)
    facts = _judge(judged, judge)
    foreign = all(position(row.instruction) is None for row in judged.rows)
    expected = [row.instruction for row in judged.rows if row.sample == 0] if foreign else None
    placed = place(judged.rows, expected, allow_partial=allow_partial)
    data = None
    if length_control and placed.is_alpaca_eval and placed.complete:  # else there is no such rate to give
        data = load_lc_data(lc_data)
    scores = score(
        placed.rows, expected=expected, lc_data=data, bootstrap=bootstrap, seed=seed, allow_partial=allow_partial
    )
    rows, screening = _screened(placed.rows)
    record = to_record(scores, _compared(judged, rows, annotations, facts, data, scores), screening)
    write_rows(output / "annotations.json", judged._replace(rows=rows, annotator=facts.name))
    report = write_report(output, record, rows)
    write_record(output / "results.json", record)
    show(record)
    console.say(f"results: {output / 'results.json'}")
    console.say(f"report: {report}")
    return record


def _refuse_exchanged(annotations: Rows, path: Path) -> None:
    """Raise `ScoreError` where the reference stands in the model's place: its score would be the opposite one."""
    if annotations.generator == OFFICIAL_REFERENCE != (annotations.reference or OFFICIAL_REFERENCE):
        raise ScoreError(
            f"{path.name}: 'generator_2' is AlpacaEval's reference, {OFFICIAL_REFERENCE!r}, and 'generator_1' "
            f"is {annotations.reference!r}",
            expected="the reference's answers under 'output_1', and the model's under 'output_2'",
            todo="exchange the two, and take 3 minus each preference",
        )


def _screened(rows: Sequence[Judged]) -> tuple[list[Judged], Screening]:
    """The rows with all that they are flagged with, and the screening that counts it.

    What the file says is kept: an answer that was cut, or was trained on, does not show it.
    """
    found = screen(
        [row.instruction for row in rows],
        [row.output for row in rows],
        [row.reference for row in rows],
        thoughts=[bool(row.thoughts or without_thoughts(row.output).thoughts) for row in rows],
    )
    flagged = [
        row._replace(flags=tuple(dict.fromkeys((*row.flags, *kinds))))
        for row, kinds in zip(rows, found.flags, strict=True)
    ]
    counts = Counter(kind for row in flagged for kind in row.flags)
    return flagged, found._replace(flags=[row.flags for row in flagged], counts=found.counts | counts)


def _judge(annotations: Rows, named: str | None) -> JudgeFacts:
    found = annotations.annotator
    if found and named and found != named:
        raise RecipeError(
            f"--judge {named!r}: these judgements name another judge, {found!r}",
            todo="leave out --judge",
        )
    complete = all(position(row.instruction) is not None for row in annotations.rows)
    official = (found or named) == OFFICIAL_JUDGE and complete and (annotations.reference in (None, OFFICIAL_REFERENCE))
    return official_judge_facts() if official else recorded_judge_facts(found or named or UNKNOWN_JUDGE)


def _compared(
    annotations: Rows, rows: Sequence[Judged], path: Path, judge: JudgeFacts, data: LcData | None, scores: Scores
) -> Compared:
    first = [row for row in rows if row.sample == 0]
    digest = sha256_of([row.instruction for row in first])
    return Compared(
        model=None,
        answers_by=annotations.generator or path.name.split(".")[0],
        instructions="alpaca_eval" if scores.is_alpaca_eval else f"instructions-{digest[:8]}",
        instructions_sha256=digest,
        instructions_revision=None,
        reference=annotations.reference or "reference",
        reference_sha256=sha256_of([[row.instruction, row.reference] for row in first]),
        generation=None,
        judge=judge,
        lc_data=data,
    )
