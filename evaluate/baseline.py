"""What answers are compared with: stored outputs, or the initial model's own answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kto_release.errors import DataError, RecipeError
from kto_release.evaluate.answers import Answer, Answers
from kto_release.evaluate.instructions import InstructionSet, Outputs, load_outputs, official_outputs
from kto_release.evaluate.pinned import pinned_reference
from kto_release.judges.asking import Pair
from kto_release.positions import COUNT, position
from kto_release.templates.thoughts import without_thoughts

INITIAL = "initial"


class Reference(NamedTuple):
    """The other side of every pair."""

    name: str
    """Its generator."""
    sha256: str
    """Digest of its answers."""
    texts: dict[tuple[int, int], str]
    """By place of the instruction and sample."""


def is_alpaca_eval(instructions: InstructionSet) -> bool:
    """Whether all instructions are AlpacaEval's, wherever they come from; there may be fewer than its 805."""
    return all(position(row.text) is not None for row in instructions.rows)


def stored_reference(setting: str, instructions: InstructionSet) -> Outputs | None:
    """The stored outputs that the recipe's `eval.reference` means; None: the initial model's answers.

    Raises `DataError` or `HubError` where they can't be had.
    """
    if setting == INITIAL:
        return None
    if setting == "auto":
        return official_outputs() if is_alpaca_eval(instructions) else None
    if setting == "alpaca_eval":
        return official_outputs()
    path = Path(setting)
    return pinned_reference(path, instructions) if path.is_dir() else load_outputs(path)


def from_outputs(
    outputs: Outputs, instructions: InstructionSet, samples: int, *, allow_partial: bool = False
) -> Reference:
    """Stored outputs, found by instruction. Raises `DataError` where any is missing, without `allow_partial`."""
    found = outputs.by_place(instructions) if allow_partial else outputs.all_by_place(instructions)
    texts = {place: without_thoughts(text).text for place, text in enumerate(found) if text is not None}
    if not texts:
        raise DataError(f"{outputs.name!r} has no output for any of the instructions", expected="outputs of this set")
    return Reference(
        outputs.name, outputs.sha256, {(place, n): text for place, text in texts.items() for n in range(samples)}
    )


def from_answers(answers: Answers) -> Reference:
    """A model's own answers, sample by sample."""
    return Reference(answers.generator, answers.sha256, {(row.place, row.sample): row.text for row in answers.rows})


def pairs_of(instructions: InstructionSet, answers: Sequence[Answer], reference: Reference) -> list[Pair]:
    """Every answer with the reference's, where there is one."""
    return [
        Pair(
            instruction=instructions.rows[one.place].text,
            dataset=instructions.rows[one.place].dataset,
            sample=one.sample,
            reference=reference.texts[one.place, one.sample],
            answer=one.text,
            thoughts=one.thoughts or None,
        )
        for one in answers
        if (one.place, one.sample) in reference.texts
    ]


def refuse_itself(candidate: str) -> None:
    """Raise `RecipeError` where the initial model would be compared with itself."""
    if candidate == INITIAL:
        raise RecipeError(
            "the initial model would be compared with its own answers",
            expected="another reference: eval.reference: alpaca_eval, or a file of outputs",
            todo="--set eval.reference=FILE, or evaluate an iteration",
        )


def is_complete(instructions: InstructionSet) -> bool:
    """Whether these are all of AlpacaEval's instructions: only then is there a length-controlled rate."""
    return is_alpaca_eval(instructions) and len({position(row.text) for row in instructions.rows}) == COUNT
