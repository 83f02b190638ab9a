"""Instructions to answer, and stored outputs to compare with: from files in AlpacaEval's format, or from the Hub.

AlpacaEval's own 805 instructions come with its stored reference answers in one file at a pinned revision, whose sha256
is checked. Everything else is a JSON file (also .gz or .xz) that holds a list of objects: `instruction` in each, and
`output` and `generator` where answers are stored.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.digests import sha256_of
from kto_release.errors import DataError, HubError
from kto_release.json_rows import is_text, read_objects, refuse
from kto_release.positions import collapsed
from kto_release.recipe import EvalSection

DATASET = "tatsu-lab/alpaca_eval"
REVISION = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
BASELINE = "alpaca_eval_gpt4_baseline.json"
"""Instructions and the reference's outputs together: dataset, instruction, output, generator."""
BASELINE_SHA256 = "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4"


class Instruction(NamedTuple):
    """One thing to answer."""

    text: str
    dataset: str
    """The collection that it belongs to, for example helpful_base; empty where the file names none."""


class InstructionSet(NamedTuple):
    """What is answered."""

    name: str
    """"alpaca_eval", or instructions- and the first eight digits of the digest: a folder's name."""
    rows: list[Instruction]
    sha256: str
    """Digest of the texts, in order."""
    revision: str | None
    """Commit on the Hub."""


class Outputs(NamedTuple):
    """Stored answers of one generator."""

    name: str
    """The generator."""
    texts: dict[str, str]
    """Answer by instruction."""
    sha256: str
    """Digest of the pairs of instruction and answer, in order."""

    def by_place(self, instructions: InstructionSet) -> list[str]:
        """The answers in the order of the instructions, found by their text whatever its whitespace.

        Raises `DataError` where any is missing.
        """
        texts = {collapsed(instruction): text for instruction, text in self.texts.items()}
        missing = [n for n, row in enumerate(instructions.rows, 1) if collapsed(row.text) not in texts]
        if missing:
            raise DataError(
                f"{self.name!r} has no output for {len(missing)} of {len(instructions.rows)} instructions, the first of"
                f" them number {missing[0]}: {instructions.rows[missing[0] - 1].text[:80]!r}",
                expected="one output for each instruction, found by its text",
                todo="complete the file of outputs",
            )
        return [texts[collapsed(row.text)] for row in instructions.rows]


def load_instructions(evaluation: EvalSection) -> InstructionSet:
    """The recipe's instructions. Raises `DataError` (with row numbers) or `HubError`."""
    if evaluation.prompts == "alpaca_eval":
        rows, revision, where = read_objects(official_file()), REVISION, BASELINE
    else:
        path = Path(evaluation.prompts)
        rows, revision, where = read_objects(path), None, path.name
    instructions = _checked(rows, where)
    wanted = evaluation.max_instructions
    chosen = instructions[:wanted] if wanted else instructions
    digest = sha256_of([row.text for row in chosen])
    whole = len(chosen) == len(instructions)
    name = "alpaca_eval" if revision and whole else f"instructions-{digest[:8]}"
    return InstructionSet(name, chosen, digest, revision)


def load_outputs(path: Path) -> Outputs:
    """Stored answers in the format of alpaca_eval's model_outputs.json. Raises `DataError` with row numbers."""
    rows = read_objects(path)
    _checked(rows, path.name)
    refuse(path.name, "no text under 'output'", [not is_text(row.get("output")) for row in rows])
    names = {row.get("generator") for row in rows}
    if len(names) > 1:
        shown = ", ".join(sorted(map(repr, names)))
        raise DataError(f"{path.name}: outputs of several generators: {shown}", expected="one generator in a file")
    name = names.pop()
    return Outputs(
        name if isinstance(name, str) and name else path.name.split(".")[0],
        {row["instruction"]: row["output"] for row in rows},
        sha256_of([[row["instruction"], row["output"]] for row in rows]),
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
    refuse(where, "no text under 'instruction'", [not _is_filled(row) for row in rows])
    counts = Counter(row["instruction"] for row in rows)
    refuse(where, "an instruction that stands twice", [counts[row["instruction"]] > 1 for row in rows])
    return [Instruction(row["instruction"], str(row.get("dataset") or "")) for row in rows]


def _is_filled(row: dict[str, Any]) -> bool:
    return is_text(row.get("instruction")) and bool(row["instruction"].strip())
