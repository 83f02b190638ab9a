"""Evaluation: prompts, answers, judgements, scores, report.

`evaluate(run)` is the story. Each stage finds in the run directory what was done before, and adds what is missing.
"""

from pathlib import Path

from kto_release import console
from kto_release.engines import engines
from kto_release.evaluate.baseline import INITIAL, is_complete, pairs_of, refuse_itself, stored_reference
from kto_release.evaluate.calibration.command import read_calibration
from kto_release.evaluate.candidates import Candidate, find_candidate
from kto_release.evaluate.compare import against_earlier, load
from kto_release.evaluate.instructions import InstructionSet, Outputs, load_instructions, load_outputs
from kto_release.evaluate.pairs import Sides
from kto_release.evaluate.record import Evaluated, finished
from kto_release.evaluate.regressions.command import are_wanted, check_regressions
from kto_release.evaluate.report.page import Turns, write_report
from kto_release.evaluate.report.summary import show, show_screening
from kto_release.evaluate.scoring.length_data import LcData, load_lc_data
from kto_release.evaluate.scoring.paired import Evaluation
from kto_release.evaluate.trying import expected_load
from kto_release.files import write_record
from kto_release.judges import open_judge
from kto_release.judges.account import account
from kto_release.judges.asking import Journal, judge_pairs, refuse_failures
from kto_release.judges.batch import collected
from kto_release.judges.prompt import load_prompt
from kto_release.judges.rows import Judged, Rows, write_rows
from kto_release.recipe import EvalSection
from kto_release.records import EvalRecord
from kto_release.run import Run


def evaluate(
    run: Run,
    model: str | None = None,
    *,
    outputs: Path | None = None,
    lc_data: Path | None = None,
    length_control: bool = True,
    allow_partial: bool = False,
) -> EvalRecord | None:
    """Evaluate a model of the run (null: its last iteration), another one, or the answers in a file of outputs.

    None where the recipe names no judge, and while batches of its questions are waited for. What can be checked before
    anything is generated or paid is checked first. Raises a `KtoReleaseError` that says what is wrong.
    """
    settings = run.recipe.eval
    broken = are_wanted(settings)
    instructions = load_instructions(settings, run.recipe.data)
    subject = load_outputs(outputs) if outputs else find_candidate(run, model)
    stored = stored_reference(settings.reference, instructions) if settings.judge else None
    control = None
    if settings.judge and length_control and is_complete(instructions):
        control = load_lc_data(lc_data)  # before anything is paid
    if settings.judge and stored is None:
        refuse_itself(subject.name)
    record = _evaluated(run, instructions, subject, stored, control, allow_partial=allow_partial)
    if broken and isinstance(subject, Candidate) and subject.name != INITIAL:
        record = _with_regressions(run, subject, record)
    return record


def _with_regressions(run: Run, subject: Candidate, record: EvalRecord | None) -> EvalRecord | None:
    """The record with what became of the benchmarks, which goes wherever its score goes."""
    with run.lock():
        found = check_regressions(run, subject)
        if record is None or record.regressions == found.tasks:
            return record
        folder = next(folder for folder, one in run.eval_records() if one == record)
        record = record.model_copy(update={"regressions": found.tasks})
        write_record(folder / "results.json", record)
        return record


def _evaluated(
    run: Run,
    instructions: InstructionSet,
    subject: Candidate | Outputs,
    stored: Outputs | None,
    control: LcData | None,
    *,
    allow_partial: bool,
) -> EvalRecord | None:
    settings = run.recipe.eval
    with run.lock(), engines(settings.engine, run.path / "eval" / "vllm.log") as pool:
        run.create()
        console.heading(f"Evaluating {subject.name} on {instructions.name} ({len(instructions.rows)} instructions)")
        judge = open_judge(run, settings.judge, pool, expected_load(settings, instructions)) if settings.judge else None
        sides = Sides(run, instructions, subject, stored, pool, judge, allow_partial=allow_partial)
        if judge is None:
            sides.answers()
            return None
        answers, reference, journal = sides.all(judge)
        evaluated = Evaluated(
            settings=settings,
            instructions=instructions,
            answers=answers,
            reference=reference,
            judge=judge,
            pairs=pairs_of(instructions, answers.rows, reference),
            training_prompts=sides.training_prompts(),
            trained_before=sides.trained_before(),
            lc_data=control,
            calibration=read_calibration(run.path / "eval", judge.facts),
            allow_partial=allow_partial,
        )
        record = finished(journal.folder, evaluated.digest())
        if record is None and not collected(judge, evaluated.pairs, journal):
            return None
        if record is None:
            record, rows = _judged(evaluated, journal)
        else:
            rows = load(journal.folder, record).rows
        # Again where nothing else is new: an earlier iteration may have been evaluated since.
        sentences = against_earlier(Evaluation(record, rows), run.path / "eval", control)
        earlier = [found for where, found in run.eval_records() if where != journal.folder]
        write_report(
            journal.folder, record, rows, earlier=earlier, compared=sentences, prompt=_prompt(evaluated.settings)
        )
    show(record)
    for sentence in sentences:
        console.say(sentence)
    console.say(f"report: {journal.folder / 'report.html'}")
    return record


def _judged(evaluated: Evaluated, journal: Journal) -> tuple[EvalRecord, list[Judged]]:
    """Screen, judge and score; annotations.json is written, and last the record, which is returned with its rows."""
    folder, judge = journal.folder, evaluated.judge
    screening = evaluated.screen()
    show_screening(screening)
    judgements = judge_pairs(judge, evaluated.pairs, journal)
    refuse_failures(judgements, evaluated.settings.max_failed)
    rows = [row._replace(flags=kinds) for row, kinds in zip(judgements.rows, screening.flags, strict=True)]
    record = evaluated.record(evaluated.score(rows), screening, account(judgements, judge.facts, judge.trial))
    write_rows(
        folder / "annotations.json", Rows(rows, evaluated.answers.generator, evaluated.reference.name, judge.facts.name)
    )
    write_record(folder / "results.json", record)
    return record, rows


def _prompt(settings: EvalSection) -> Turns:
    """What the judge is sent, unfilled; nothing for recorded judgements, of which nobody knows."""
    section = settings.judge
    if section is None or section.kind == "recorded":
        return ()
    return load_prompt(section.prompt, section.letters).turns
