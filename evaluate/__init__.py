"""Evaluation: prompts, answers, judgements, scores, report.

`evaluate(run)` is the story. Each stage finds in the run directory what was done before, and adds what is missing.
"""

import re
from pathlib import Path

from kto_release import console
from kto_release.evaluate.answers import answer
from kto_release.evaluate.candidates import Candidate, find_candidate
from kto_release.evaluate.engines import Engines, engines
from kto_release.evaluate.judges import Judge, open_judge
from kto_release.evaluate.judging import judge_pairs, refuse_failures
from kto_release.evaluate.lc_data import LcData, fetch_lc_data, read_lc_data
from kto_release.evaluate.outcome import Compare, finish, finished, inputs_digest
from kto_release.evaluate.prompts import InstructionSet, Outputs, load_instructions
from kto_release.evaluate.reference import (
    Reference,
    from_answers,
    from_outputs,
    is_complete,
    pairs_of,
    refuse_itself,
    stored_reference,
)
from kto_release.evaluate.results import show
from kto_release.evaluate.training_prompts import training_prompts
from kto_release.recipe import sha256_of
from kto_release.records import EvalRecord
from kto_release.run import Run


def evaluate(
    run: Run,
    model: str | None = None,
    *,
    lc_data: Path | None = None,
    no_lc: bool = False,
    allow_partial: bool = False,
) -> EvalRecord | None:
    """Evaluate a model of the run (null: its last iteration), or another one, and return its record.

    None where the recipe names no judge: answers are then all there is. What can be checked before anything is
    generated or paid is checked first. Raises a `KtoReleaseError` that says what is wrong.
    """
    recipe = run.recipe.eval
    candidate = find_candidate(run, model)
    instructions = load_instructions(recipe)
    stored = stored_reference(recipe.reference, instructions) if recipe.judge else None
    if recipe.judge and stored is None:
        refuse_itself(candidate.name)
    control = _length_data(instructions, lc_data, no_lc=no_lc) if recipe.judge else None
    with run.lock(), engines(recipe.engine, run.path / "eval" / "vllm.log") as pool:
        run.create()
        judge = open_judge(run, recipe.judge, pool) if recipe.judge else None
        console.heading(f"Evaluating {candidate.name} on {instructions.name} ({len(instructions.rows)} instructions)")
        answers = answer(run, candidate, instructions, pool, reserve=_reserve(judge, candidate))
        if judge is None:
            return None
        reference = _reference(run, stored, instructions, pool, judge)
        folder = run.eval_folder(candidate.name, instructions.name, folder_name(judge, reference))
        pairs = pairs_of(instructions, answers.rows, reference)
        trained_on = training_prompts(run, candidate.name, candidate.tokenizer)
        compare = Compare(instructions, answers, reference, judge, pairs, trained_on)
        digest = inputs_digest(compare, recipe, control, allow_partial=allow_partial)
        record = finished(folder, digest)
        if record is None:
            judgements = judge_pairs(judge, pairs, folder)
            refuse_failures(judgements, recipe.max_failed)
            record = finish(folder, compare, judgements, recipe, control, digest, allow_partial=allow_partial)
    show(record)
    console.say(f"report: {folder / 'report.html'}")
    return record


def _length_data(instructions: InstructionSet, path: Path | None, *, no_lc: bool) -> LcData | None:
    """The data of the length control, before anything is paid; None where no such rate is possible or wanted."""
    if no_lc or not is_complete(instructions):
        return None
    return read_lc_data(path) if path else fetch_lc_data()


def _reserve(judge: Judge | None, candidate: Candidate) -> int:
    """Tokens that an engine must have room for where the judge is the model that answers."""
    from kto_release.evaluate.judges.local import LocalJudge

    return judge.longest if isinstance(judge, LocalJudge) and judge.model == candidate.model else 0


def _reference(
    run: Run, stored: Outputs | None, instructions: InstructionSet, pool: Engines, judge: Judge
) -> Reference:
    if stored is not None:
        return from_outputs(stored, instructions, run.recipe.eval.generation.samples)
    initial = find_candidate(run, "initial")
    return from_answers(answer(run, initial, instructions, pool, reserve=_reserve(judge, initial)))


def folder_name(judge: Judge, reference: Reference) -> str:
    """Of a judge's folder: its name, and a digest of everything that tells it from another one's."""
    facts = judge.facts.model_dump(exclude={"name"})
    digest = sha256_of({"judge": [facts, judge.determines], "reference": [reference.name, reference.sha256]})
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', judge.facts.name)}-{digest[:8]}"
