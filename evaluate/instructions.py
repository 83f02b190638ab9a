"""Instructions to answer, and stored outputs to compare with: from files, from held-out feedback, or from the Hub.

AlpacaEval's own 805 instructions come with its stored reference answers in one file at a pinned revision, whose sha256
is checked. Everything else is a file of rows (JSON, JSON lines, CSV, or lines of text, also packed): a question or a
conversation in each, and `output` and `generator` where answers are stored.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from kto_release.digests import sha256_of
from kto_release.errors import DataError, HubError
from kto_release.evaluate.held_out import HELD_OUT_PROMPTS, held_out_questions
from kto_release.evaluate.questions import EXPECTED, Instruction, problems_of
from kto_release.json_rows import is_text, read_objects, refuse
from kto_release.positions import collapsed, position
from kto_release.recipe import DataSection, EvalSection

DATASET = "tatsu-lab/alpaca_eval"
REVISION = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
BASELINE = "alpaca_eval_gpt4_baseline.json"
"""Instructions and the reference's outputs together: dataset, instruction, output, generator."""
BASELINE_SHA256 = "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4"


Item = TypeVar("Item")


class InstructionSet(NamedTuple):
    """What is answered."""

    name: str
    """"alpaca_eval", the recipe's eval.name, or instructions- and the first eight digits of the digest."""
    rows: list[Instruction]
    sha256: str
    """Digest of the texts, in order."""
    revision: str | None
    """Commit on the Hub."""
    left_out: tuple[Instruction, ...] = ()
    """What max_instructions leaves of the set: it is missing from a score."""

    @property
    def expected_rows(self) -> list[Instruction]:
        """The whole set, asked or not."""
        return [*self.rows, *self.left_out]

    @property
    def expected(self) -> list[str]:
        """Texts of the whole set: a score of fewer is partial."""
        return [row.text for row in self.expected_rows]

    @property
    def folder(self) -> str:
        """A folder's name, another one for other texts."""
        digest = self.sha256[:8]
        return self.name if self.name == "alpaca_eval" or self.name.endswith(digest) else f"{self.name}-{digest}"


class Outputs(NamedTuple):
    """Stored answers of one generator."""

    name: str
    """The generator."""
    texts: dict[str, str]
    """Answer by instruction."""
    sha256: str
    """Digest of the pairs of instruction and answer, in order."""
    questions: Mapping[str, str] = MappingProxyType({})
    """Last question by instruction, where that is a conversation."""

    def by_place(self, instructions: InstructionSet) -> list[str | None]:
        """The answers in the order of the instructions; null where there is none.

        An answer is found by the instruction's very text; else by its text whatever the whitespace, or by the last
        question of a conversation, where only one instruction and only one answer can be meant. Raises `DataError`
        where several answers could be one instruction's.
        """
        found: list[str | None] = [self.texts.get(row.text) for row in instructions.rows]
        taken = {row.text for row in instructions.expected_rows}
        spare = [text for text in self.texts if text not in taken]
        for loosely in (collapsed, self._question):
            wanted = _grouped(
                (loosely(row.text) if loosely is collapsed else collapsed(row.question), place)
                for place, row in enumerate(instructions.rows)
            )
            given = _grouped((loosely(text), text) for text in spare)
            for key, texts in given.items():
                places = wanted.get(key, [])
                unanswered = [place for place in places if found[place] is None]
                if not places:
                    continue
                if len(texts) > 1 or len(places) > 1 or not unanswered:
                    raise self._ambiguous(texts[0])
                found[places[0]] = self.texts[texts[0]]
            spare = [text for text in spare if loosely(text) not in wanted]
        return found

    def all_by_place(self, instructions: InstructionSet) -> list[str]:
        """The same. Raises `DataError` where any is missing, too."""
        texts = self.by_place(instructions)
        missing = [number for number, text in enumerate(texts, 1) if text is None]
        if missing:
            raise DataError(
                f"{self.name!r} has no output for {len(missing)} of {len(instructions.rows)} instructions, the first of"
                f" them number {missing[0]}: {instructions.rows[missing[0] - 1].text[:80]!r}",
                expected="one output for each instruction, found by its text",
                todo="complete the file of outputs, or pass --allow-partial: a marked result",
            )
        return [text for text in texts if text is not None]

    def _question(self, text: str) -> str:
        return collapsed(self.questions.get(text, text))

    def _ambiguous(self, text: str) -> DataError:
        return DataError(
            f"{self.name!r} has several outputs that may be one instruction's, or one that may be several's: "
            f"{text[:80]!r}",
            expected="one output for each instruction; texts that differ in whitespace only must be those of the set",
            todo="keep the one that you mean, under the instruction's own text",
        )


def _grouped(items: Iterable[tuple[str, Item]]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for key, item in items:
        groups.setdefault(key, []).append(item)
    return groups


def load_instructions(evaluation: EvalSection, data: DataSection | None = None) -> InstructionSet:
    """The recipe's instructions; `data` holds the held-out ones.

    Raises `DataError` (with row numbers) or `HubError`.
    """
    revision = None
    if evaluation.prompts == HELD_OUT_PROMPTS and data is not None:
        instructions = held_out_questions(data)
    elif evaluation.prompts == "alpaca_eval":
        instructions, revision = _checked(read_objects(official_file()), BASELINE), REVISION
    else:
        path = Path(evaluation.prompts)
        instructions = _checked(read_objects(path), path.name)
    _refuse_one_place(instructions)
    wanted = evaluation.max_instructions or len(instructions)
    chosen, left_out = instructions[:wanted], instructions[wanted:]
    digest = sha256_of([row.text for row in chosen])
    name = "alpaca_eval" if revision and not left_out else f"instructions-{digest[:8]}"
    if evaluation.name:
        name = f"{evaluation.name}-first-{len(chosen)}" if left_out else evaluation.name
    return InstructionSet(name, chosen, digest, revision, tuple(left_out))


def load_outputs(path: Path) -> Outputs:
    """Stored answers in the format of alpaca_eval's model_outputs.json. Raises `DataError` with row numbers."""
    rows = read_objects(path)
    asked = _checked(rows, path.name)
    refuse(path.name, "no text under 'output'", [not is_text(row.get("output")) for row in rows])
    names = {row.get("generator") for row in rows}
    if len(names) > 1:
        shown = ", ".join(sorted(map(repr, names)))
        raise DataError(f"{path.name}: outputs of several generators: {shown}", expected="one generator in a file")
    name = names.pop()
    return Outputs(
        name if isinstance(name, str) and name else path.name.split(".")[0],
        {one.text: row["output"] for one, row in zip(asked, rows, strict=True)},
        sha256_of([[one.text, row["output"]] for one, row in zip(asked, rows, strict=True)]),
        {one.text: one.question for one in asked if one.conversation},
    )


def official_outputs() -> Outputs:
    """AlpacaEval's stored reference, gpt4_1106_preview. Raises `HubError` where it can't be had."""
    return load_outputs(official_file())


def official_file() -> Path:
    """AlpacaEval's instructions and reference outputs, fetched once into the Hub's cache and checked."""
    path = fetch(BASELINE)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != BASELINE_SHA256:
        raise DataError(
            f"{DATASET}/{BASELINE} at {REVISION[:8]} has sha256 {digest}",
            expected=BASELINE_SHA256,
            todo="remove it from the Hub's cache and try again; do not score with it",
        )
    return path


def fetch(name: str) -> Path:
    """A file of AlpacaEval's data set at the pinned revision. Raises `HubError` where it is neither cached nor had."""
    from huggingface_hub import hf_hub_download

    from kto_release.hub import READ_FAILURES, explain_read  # brings huggingface_hub

    try:
        return Path(hf_hub_download(DATASET, name, repo_type="dataset", revision=REVISION))
    except READ_FAILURES as error:
        raise HubError(
            f"{DATASET}/{name} is not in the Hub's cache, and "
            f"{explain_read(error, 'data set', DATASET, REVISION).problem}",
            todo="connect to the Hub once, or give eval.prompts (and eval.reference) a file in AlpacaEval's format",
        ) from None


def _checked(rows: Sequence[dict[str, Any]], where: str) -> list[Instruction]:
    instructions, wrong = problems_of(rows)
    for problem, numbers in wrong.items():
        refuse(where, problem, [number in numbers for number in range(1, len(rows) + 1)], expected=EXPECTED)
    counts = Counter(row.text for row in instructions)
    refuse(where, "an instruction that stands twice", [counts[row.text] > 1 for row in instructions])
    return instructions


def _refuse_one_place(instructions: Sequence[Instruction]) -> None:
    """Raise `DataError` where two of AlpacaEval's instructions are one, but for their whitespace."""
    places = [position(row.text) for row in instructions]
    counts = Counter(places)
    if None not in counts:
        refuse("eval.prompts", "an instruction of AlpacaEval that stands twice", [counts[one] > 1 for one in places])
