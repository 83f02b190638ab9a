"""Evaluation: prompts, answers, judgements, scores, report.

`evaluate(run)` is the story. Each stage finds in the run directory what was done before, and adds what is missing.
"""

from pathlib import Path

from kto_release import console
from kto_release.engines import engines
from kto_release.evaluate.baseline import is_complete, pairs_of, refuse_itself, stored_reference
from kto_release.evaluate.candidates import find_candidate
from kto_release.evaluate.compare import load
from kto_release.evaluate.instructions import InstructionSet, load_instructions, load_outputs
from kto_release.evaluate.pairs import Sides
from kto_release.evaluate.record import Compare, against_earlier, finish, finished, inputs_digest, screened
from kto_release.evaluate.report.summary import show
from kto_release.evaluate.scoring.length_data import LcData, load_lc_data
from kto_release.judges import open_judge
from kto_release.judges.asking import judge_pairs, refuse_failures
from kto_release.records import EvalRecord
from kto_release.run import Run


def evaluate(
    run: Run,
    model: str | None = None,
    *,
    outputs: Path | None = None,
    lc_data: Path | None = None,
    no_lc: bool = False,
    allow_partial: bool = False,
) -> EvalRecord | None:
    """Evaluate a model of the run (null: its last iteration), another one, or the answers in a file of outputs.

    None where the recipe names no judge: answers are then all there is. What can be checked before anything is
    generated or paid is checked first. Raises a `KtoReleaseError` that says what is wrong.
    """
    recipe = run.recipe.eval
    instructions = load_instructions(recipe)
    subject = load_outputs(outputs) if outputs else find_candidate(run, model)
    stored = stored_reference(recipe.reference, instructions) if recipe.judge else None
    control = _length_data(instructions, lc_data, no_lc=no_lc) if recipe.judge else None
    if recipe.judge and stored is None:
        refuse_itself(subject.name)
    with run.lock(), engines(recipe.engine, run.path / "eval" / "vllm.log") as pool:
        run.create()
        console.heading(f"Evaluating {subject.name} on {instructions.name} ({len(instructions.rows)} instructions)")
        judge = open_judge(run, recipe.judge, pool) if recipe.judge else None
        sides = Sides(run, instructions, subject, stored, pool, judge)
        if judge is None:
            sides.answers()
            return None
        answers, reference, journal = sides.all(judge)
        pairs = pairs_of(instructions, answers.rows, reference)
        compare = Compare(run, instructions, answers, reference, judge, pairs, sides.training_prompts())
        digest = inputs_digest(compare, control, allow_partial=allow_partial)
        record = finished(journal.folder, digest)
        if record is None:
            screening = screened(compare)
            judgements = judge_pairs(judge, pairs, journal)
            refuse_failures(judgements, recipe.max_failed)
            record = finish(
                journal.folder, compare, screening, judgements, control, digest, allow_partial=allow_partial
            )
    show(record)
    for sentence in against_earlier(load(journal.folder, record), run, control):
        console.say(sentence)
    console.say(f"report: {journal.folder / 'report.html'}")
    return record


def _length_data(instructions: InstructionSet, path: Path | None, *, no_lc: bool) -> LcData | None:
    """The data of the length control, before anything is paid; None where no such rate is possible or wanted."""
    if no_lc or not is_complete(instructions):
        return None
    return load_lc_data(path)
