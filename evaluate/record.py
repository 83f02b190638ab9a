"""The end of an evaluation: judgements become scores, and a judge's folder its files; results.json comes last."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.evaluate.answers import Answers
from kto_release.evaluate.baseline import Reference, is_alpaca_eval
from kto_release.evaluate.calibration.command import estimated, read_calibration
from kto_release.evaluate.compare import compare_with_earlier, in_words
from kto_release.evaluate.instructions import InstructionSet
from kto_release.evaluate.report.page import write_report
from kto_release.evaluate.report.summary import Compared, to_record
from kto_release.evaluate.scoring.length_data import LcData
from kto_release.evaluate.scoring.paired import Evaluation
from kto_release.evaluate.scoring.scores import score
from kto_release.evaluate.scoring.screening import KINDS, Screening, screen
from kto_release.files import read_record, write_record
from kto_release.judges import Judge
from kto_release.judges.asking import Judgements, Pair
from kto_release.judges.rows import Rows, write_rows
from kto_release.records import EvalRecord
from kto_release.run import Run


class Compare(NamedTuple):
    """Everything that a score is of."""

    run: Run
    instructions: InstructionSet
    answers: Answers
    reference: Reference
    judge: Judge
    pairs: list[Pair]
    training_prompts: Iterable[str] | None
    """Read where they are needed."""


def inputs_digest(compare: Compare, control: LcData | None, *, allow_partial: bool) -> str:
    """Digest of all that determines a record: where it is the same, nothing is to be done."""
    evaluation = compare.run.recipe.eval
    calibration = read_calibration(compare.run.path / "eval", compare.judge.facts)
    return sha256_of(
        {
            "instructions": compare.instructions.sha256,
            "answers": compare.answers.sha256,
            "generator": compare.answers.generator,
            "reference": [compare.reference.name, compare.reference.sha256],
            "judge": [compare.judge.facts.model_dump(), compare.judge.determines],
            "length_control": control.sha256 if control else None,
            "calibration": calibration.finished if calibration else None,
            "bootstrap": evaluation.bootstrap,
            "min_answer_mass": evaluation.min_answer_mass,
            "max_failed": evaluation.max_failed,
            "allow_partial": allow_partial,
        }
    )


def finished(folder: Path, digest: str) -> EvalRecord | None:
    """The record in `folder`, if it is of these very inputs."""
    record = read_record(folder / "results.json", EvalRecord)
    return record if record is not None and record.inputs_sha256 == digest else None


def screened(compare: Compare) -> Screening:
    """The answers screened, before their judgements are asked and paid for; what stands out is said at once."""
    screening = screen(
        [pair.instruction for pair in compare.pairs],
        [pair.answer for pair in compare.pairs],
        [pair.reference for pair in compare.pairs],
        cut=[answer.cut for answer in compare.answers.rows],
        training_prompts=compare.training_prompts,
    )
    for reason in screening.gamed:
        console.warn(f"a score of these answers will be called gamed: {reason}")
    found = [f"{count} x {KINDS[kind]}" for kind, count in screening.counts.items() if count]
    if found:
        console.say(f"screening: {'; '.join(found)}")
    return screening


def finish(
    folder: Path,
    compare: Compare,
    screening: Screening,
    judgements: Judgements,
    control: LcData | None,
    digest: str,
    *,
    allow_partial: bool,
) -> EvalRecord:
    """Score, write annotations.json and the report, then the record. Raises `ScoreError`."""
    evaluation = compare.run.recipe.eval
    own = is_alpaca_eval(compare.instructions)
    scores = score(
        judgements.rows,
        expected=None if own else [row.text for row in compare.instructions.rows],
        lc_data=control,
        bootstrap=evaluation.bootstrap,
        allow_partial=allow_partial or bool(evaluation.max_instructions or evaluation.max_failed),
        min_answer_mass=evaluation.min_answer_mass,
    )
    made = compare.answers.record
    record = to_record(
        scores,
        Compared(
            model=made.model if made else None,
            answers_by=compare.answers.generator,
            instructions=compare.instructions.name,
            instructions_sha256=compare.instructions.sha256,
            instructions_revision=compare.instructions.revision,
            reference=compare.reference.name,
            reference_sha256=compare.reference.sha256,
            generation=made.generation if made else None,
        ),
        compare.judge.facts,
        lc_data=control,
        screening=screening.counts,
        gamed=screening.gamed,
        estimated=estimated(
            read_calibration(compare.run.path / "eval", compare.judge.facts),
            scores,
            compare.judge.facts,
            compare.reference.name,
        ),
    ).model_copy(update={"inputs_sha256": digest})
    rows = [row._replace(flags=kinds) for row, kinds in zip(judgements.rows, screening.flags, strict=True)]
    judged = Rows(rows, compare.answers.generator, compare.reference.name, compare.judge.facts.name)
    write_rows(folder / "annotations.json", judged)
    earlier = [found for where, found in compare.run.eval_records() if where != folder]
    compared = against_earlier(Evaluation(folder.name, record, rows), compare.run, control)
    write_report(folder, record, rows, earlier=earlier, compared=compared)
    write_record(folder / "results.json", record)
    return record


def against_earlier(mine: Evaluation, run: Run, control: LcData | None) -> list[str]:
    """How this model compares with the initial one and each earlier iteration, pair by pair, in sentences."""
    found = compare_with_earlier(mine, run.path / "eval", control)
    return [sentence for comparison in found for sentence in in_words(comparison)]
