"""Judged rows in the order of their instructions: every row has its place, and every place its row.

A row is known by its instruction, never by where it stands in a file; what is doubled, foreign or out of range is an
error, and what is missing is listed.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from kto_release.errors import ScoreError
from kto_release.judges.rows import Judged, check_preference
from kto_release.positions import COUNT, position

SHOWN = 5
"""How many instructions a message quotes."""


class Placed(NamedTuple):
    """Judged rows in the order of their instructions."""

    rows: list[Judged]
    """Sorted by place and sample."""
    places: list[int]
    """Index of each row's instruction among all that were expected."""
    is_alpaca_eval: bool
    expected: int
    """How many instructions there are."""
    missing: list[str]
    """Each instruction (or position) that lacks a judgement, for messages; once per missing sample."""

    @property
    def failed(self) -> list[Judged]:
        """Rows whose judgement was tried and failed."""
        return [row for row in self.rows if row.preference is None]

    @property
    def complete(self) -> bool:
        """Whether every instruction has a preference."""
        return not self.missing and not self.failed


def place(rows: Sequence[Judged], expected: Sequence[str] | None, *, allow_partial: bool = False) -> Placed:
    """The rows in the order of the expected instructions (null: AlpacaEval's), whatever order they come in.

    Raises `ScoreError` where a row is foreign, doubled or out of range, or (without `allow_partial`) not all are there.
    """
    for number, row in enumerate(rows, 1):
        check_preference(row.preference, f"row {number}")
    own = None if expected is None else {text: number for number, text in enumerate(expected)}
    places = [position(row.instruction) if own is None else own.get(row.instruction) for row in rows]
    foreign = [number for number, found in enumerate(places, 1) if found is None]
    if foreign:
        raise ScoreError(
            f"{len(foreign)} of {len(rows)} judged rows hold an instruction that is not "
            f"{'AlpacaEval' if own is None else 'the instruction set'}'s: {_ranges('row', foreign)}",
            expected=f"AlpacaEval's {COUNT} instructions" if own is None else f"the {len(own)} instructions of the set",
            todo="remove these rows, or mend their instructions",
        )
    keys = [(found, row.sample) for found, row in zip(places, rows, strict=True) if found is not None]
    repeated = {key for key, count in Counter(keys).items() if count > 1}
    if repeated:
        numbers = [number for number, key in enumerate(keys, 1) if key in repeated]
        raise ScoreError(
            f"instructions that are judged more than once: {_ranges('row', numbers)}",
            expected="one row for each instruction",
            todo="keep the row that you mean",
        )
    order = sorted(range(len(rows)), key=keys.__getitem__)
    size = COUNT if expected is None else len(expected)
    samples = max((row.sample for row in rows), default=0) + 1
    absent = sorted({(number, sample) for number in range(size) for sample in range(samples)} - set(keys))
    missing = [f"position {number}" if expected is None else _quoted(expected[number]) for number, _ in absent]
    placed = Placed([rows[i] for i in order], [keys[i][0] for i in order], expected is None, size, missing)
    if not placed.complete and not allow_partial:
        raise _incomplete(placed)
    return placed


def _incomplete(placed: Placed) -> ScoreError:
    """The error that says how many instructions lack a preference, and which."""
    problems = []
    if placed.missing:
        positions = [int(text.split()[1]) for text in placed.missing] if placed.is_alpaca_eval else []
        which = _ranges("position", sorted(set(positions))) if positions else _listed(placed.missing)
        problems.append(f"no judgement for {len(placed.missing)} of {placed.expected} instructions: {which}")
    if placed.failed:
        shown = [f"{_quoted(row.instruction)} ({row.failure or 'no preference'})" for row in placed.failed]
        problems.append(f"failed judgements: {len(shown)} of {placed.expected}: {_listed(shown)}")
    return ScoreError(
        "\n".join(problems),
        expected="a judgement for every instruction"
        + ("; positions are counted from 0, in AlpacaEval's order" if placed.is_alpaca_eval else ""),
        todo="judge them, or pass --allow-partial: a marked result without a length-controlled rate",
    )


def _quoted(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= 60 else short[:59] + "…")


def _listed(texts: Sequence[str]) -> str:
    rest = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f", and {rest} more" if rest > 0 else "")


def _ranges(noun: str, numbers: Sequence[int]) -> str:
    """Sorted numbers as "rows 1-3, 7"."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][1] + 1:
            groups[-1][1] = number
        else:
            groups.append([number, number])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in groups)
    return f"{noun}{'s' if len(numbers) > 1 else ''} {text}"
