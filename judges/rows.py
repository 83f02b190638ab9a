"""annotations.json: judged pairs of answers in alpaca_eval's format, with what we know more of each.

Every field has its one place here, for who writes and for who reads. A judgement that failed has no preference, and so
it is counted and never scored.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.errors import ScoreError
from kto_release.files import write_atomically
from kto_release.json_rows import is_text, read_objects, refuse


class Judged(NamedTuple):
    """One answer of the evaluated model, compared with the reference's answer to the same instruction."""

    instruction: str
    dataset: str | None
    """The collection that the instruction belongs to, for example helpful_base."""
    output: str
    """The evaluated model's answer."""
    reference: str
    """What it is compared with."""
    preference: float | None
    """In [1, 2]: 2 is a win of the model's answer, 1.5 a draw; null: the judgement failed, and is never scored."""
    preferences: tuple[float | None, ...] = ()
    """The same per order asked: the reference shown first, then the model shown first. Empty: the order is unknown."""
    mass: float | None = None
    """Probability mass on the answer letters, mean of the orders; null where it was not measured."""
    failure: str | None = None
    """Why there is no preference."""
    sample: int = 0
    """Which of the answers to this instruction, from 0."""
    flags: tuple[str, ...] = ()
    """Kinds that screening flagged the answer with."""
    tampered: str | None = None
    """Why the judgement may have been tampered with."""
    price: float | None = None
    """USD, of all orders; null where it is not known."""
    seconds: float | None = None
    """Time that the judge took, of all orders."""
    raw: Any = None
    """The judge's own words: by order, or whatever the file's writer put there."""
    thoughts: str | None = None
    """What the model thought before its answer; it is no part of what is judged or measured."""


class Rows(NamedTuple):
    """A file of judgements: one model's answers against one reference's by one judge."""

    rows: list[Judged]
    """In the order of the file."""
    generator: str | None
    """Whose answers were judged."""
    reference: str | None
    """Generator of the answers that they were compared with."""
    annotator: str | None
    """The judge that the rows name."""


def scored(rows: Sequence[Judged]) -> list[Judged]:
    """The rows that hold a preference, in their order."""
    return [row for row in rows if row.preference is not None]


def write_rows(path: Path, judged: Rows) -> None:
    """Write the judgements, atomically."""
    plain = [
        {
            "instruction": row.instruction,
            "output_1": row.reference,
            "generator_1": judged.reference,
            "dataset": row.dataset,
            "output_2": row.output,
            "generator_2": judged.generator,
            "annotator": judged.annotator,
            "preference": row.preference,
            "price_per_example": row.price,
            "time_per_example": row.seconds,
            "raw_completion": row.raw,
            "preferences": list(row.preferences),
            "answer_mass": row.mass,
            "failure": row.failure,
            "flags": list(row.flags),
            "tampered": row.tampered,
            "sample": row.sample,
            **({} if row.thoughts is None else {"thoughts": row.thoughts}),
        }
        for row in judged.rows
    ]
    text = json.dumps(plain, ensure_ascii=False, indent=2) + "\n"
    # Half a surrogate pair, in a judge's own words, is spelled as JSON spells it: \ud83d.
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def read_rows(path: Path) -> Rows:
    """The judgements in a file in alpaca_eval's format. Raises `DataError` or `ScoreError` with row numbers."""
    plain = read_objects(path)
    expected = "alpaca_eval's annotations.json: instruction, output_1, output_2 and preference in every row"
    for key in ("instruction", "output_1", "output_2"):
        refuse(path.name, f"no text under {key!r}", [not is_text(row.get(key)) for row in plain], expected=expected)
    refuse(path.name, "no 'preference'", ["preference" not in row for row in plain], expected=expected)
    _refuse_zero_one(path.name, [row["preference"] for row in plain])
    rows = [_judged(row, f"{path.name}, row {number}") for number, row in enumerate(plain, 1)]
    return Rows(rows, *(_only(path, plain, key) for key in ("generator_2", "generator_1", "annotator")))


def _refuse_zero_one(name: str, preferences: Sequence[Any]) -> None:
    """Raise `ScoreError` where preferences are wins as 0 and 1: on AlpacaEval's scale that is draws and losses."""
    values = [value for value in preferences if isinstance(value, int | float) and not math.isnan(value)]
    below = sum(value < 1 for value in values)
    # A draw may be written as 0; a file in which nothing but that and losses occurs is hardly ever meant so.
    if below and all(0 <= value <= 1 for value in values):
        raise ScoreError(
            f"{name}: no preference is above 1, and {below} of {len(values)} are below it: 0 and 1 are another "
            "scale than AlpacaEval's",
            expected="a number from 1 (the reference wins) to 2 (the model wins); 1.5 or 0 is a draw",
            todo="add 1 to each preference where 1 is a win of the model's answer; a draw is then 1.5",
        )


def check_preference(value: object, where: str) -> None:
    """Raise `ScoreError` unless `value` is a preference in [1, 2], or null for a failed judgement."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 2:
        hint = "; -1 is alpaca_eval's mark of a judgement that failed" if value == -1 else ""
        raise ScoreError(
            f"{where}: the preference is {value!r}{hint}",
            expected="a number from 1 (the reference wins) to 2 (the model wins); 1.5 or 0 is a draw, null a failure",
            todo="judge this row again; a value outside this range would change the score without a word",
        )


def _judged(row: dict[str, Any], where: str) -> Judged:
    preference = _preference(row["preference"], where)
    sample = row.get("sample") or 0
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise ScoreError(f"{where}: 'sample' is {sample!r}", expected="a number from 0, or nothing")
    dataset, failure = row.get("dataset"), row.get("failure")
    return Judged(
        instruction=row["instruction"],
        dataset=dataset if is_text(dataset) and dataset else None,
        output=row["output_2"],
        reference=row["output_1"],
        preference=preference,
        preferences=tuple(_orders(row, where)),
        mass=_number(row, "answer_mass", where, most=1.0),
        failure=None if preference is not None else str(failure or "no preference is recorded"),
        sample=sample,
        flags=tuple(_texts(row, "flags", where)),
        tampered=_text(row, "tampered", where),
        price=_number(row, "price_per_example", where),
        seconds=_number(row, "time_per_example", where),
        thoughts=_text(row, "thoughts", where),
        raw=None if _is_nan(row.get("raw_completion")) else row.get("raw_completion"),
    )


def _preference(value: Any, where: str) -> float | None:
    if _is_nan(value):
        return None  # how pandas spells null
    if value == 0 and not isinstance(value, bool):
        return 1.5  # alpaca_eval's other spelling of a draw
    check_preference(value, where)
    return None if value is None else float(value)


def _orders(row: dict[str, Any], where: str) -> Iterator[float | None]:
    values = row.get("preferences") or []
    if not isinstance(values, list) or len(values) not in (0, 2):
        raise ScoreError(f"{where}: 'preferences' is {values!r}", expected="a list of two, or nothing")
    return (_preference(value, f"{where}, 'preferences'") for value in values)


def _number(row: dict[str, Any], key: str, where: str, most: float = math.inf) -> float | None:
    value = row.get(key)
    if value is None or _is_nan(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        wanted = "a number from 0" + (f" to {most:g}" if most < math.inf else "")
        raise ScoreError(f"{where}: {key!r} is {value!r}", expected=f"{wanted}, or null")
    return float(value)


def _text(row: dict[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is None or (isinstance(value, str) and is_text(value)):
        return value or None
    raise ScoreError(f"{where}: {key!r} is {value!r}", expected="text, or null")


def _texts(row: dict[str, Any], key: str, where: str) -> list[str]:
    values = row.get(key) or []
    if not isinstance(values, list) or not all(is_text(value) for value in values):
        raise ScoreError(f"{where}: {key!r} is {values!r}", expected="a list of texts, or nothing")
    return values


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


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
