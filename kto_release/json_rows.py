"""A file of objects, plain or packed: a JSON list (the form of all of alpaca_eval's files), JSON lines, CSV, or lines.

Its ending says which: .jsonl and .ndjson are JSON lines, .csv and .tsv tables, .txt one instruction in each line, and
anything else is JSON: a list of objects or of texts, or such a list under one key.
"""

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kto_release.errors import DataError

SHOWN_ROWS = 10
"""How many wrong rows a message names."""
NUMBERS = frozenset(["preference", "sample", "answer_mass", "price_per_example", "time_per_example"])
"""Columns of a table whose cells are numbers or empty; everything else in a table is text."""
PACKED = (".gz", ".xz")


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, plain or packed by gzip or xz. A text alone stands for {"instruction": text}.

    Raises `DataError`, for lines and tables with the row's number.
    """
    try:
        # utf-8-sig: some editors put a mark at the start of a file, which is no part of its text.
        text = _unpacked(path.read_bytes()).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"no such file: {str(path)!r}", expected="a file of instructions, answers or judgements"
        ) from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} can't be read: {error}", expected="a file in UTF-8") from None
    rows = READERS.get(kind_of(path.name), _json)(path, text)
    if not rows:
        raise DataError(f"{str(path)!r} holds no row", expected="a list of objects with 'instruction' in each")
    if all(isinstance(row, str) for row in rows):
        rows = [{"instruction": row} for row in rows]
    refuse(path.name, "not an object", [not isinstance(row, dict) for row in rows])
    return rows


def kind_of(name: str) -> str:
    """The ending that says how a file is read, without that of its packing: ".jsonl"."""
    inner = name.lower()
    for packing in PACKED:
        inner = inner.removesuffix(packing)
    return Path(inner).suffix


def is_text(value: object) -> bool:
    """Whether it is text that can be written to a file: JSON can spell half a surrogate pair, which is none."""
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value


def refuse(
    where: str,
    problem: str,
    wrong: Sequence[bool],
    *,
    expected: str = "a list of objects with 'instruction' in each, and 'output' where answers are stored",
) -> None:
    """Raise `DataError` where any row is wrong; rows are counted from 1, as an editor does."""
    rows = [number for number, is_wrong in enumerate(wrong, 1) if is_wrong]
    if rows:
        shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", …" if len(rows) > SHOWN_ROWS else "")
        raise DataError(f"{where}: {problem}: row {shown} ({len(rows)} in all)", expected=expected)


def _unpacked(content: bytes) -> bytes:
    """What is packed is told by its first bytes, since names can be wrong."""
    if content.startswith(b"\x1f\x8b"):
        return gzip.decompress(content)
    return lzma.decompress(content) if content.startswith(b"\xfd7zXZ\0") else content


def _json(path: Path, text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and lines[0].strip().startswith("{") and lines[0].strip().endswith("}"):
            return _lines(path, text)
        raise DataError(
            f"{str(path)!r} is no JSON: {error}",
            expected="a list of objects",
            todo="name the file .jsonl, .csv or .txt if it is one",
        ) from None
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list) and value]
        if len(lists) == 1:
            return lists[0]
    if not isinstance(found, list) or not found:
        held = "an empty list" if found == [] else type(found).__name__
        raise DataError(f"{str(path)!r} holds {held}", expected="a list of objects with 'instruction' in each")
    return found


def _lines(path: Path, text: str) -> list[Any]:
    """JSON lines. Split at line feeds alone: JSON may hold the other line ends of Unicode within a text."""
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path.name}, line {number}: not valid JSON: {error}", todo="mend this line, or take it out"
            ) from None
    return rows


def _table(path: Path, text: str) -> list[Any]:
    head = text.split("\n", 1)[0]
    delimiter = "\t" if kind_of(path.name) == ".tsv" else ";" if "," not in head and ";" in head else ","
    csv.field_size_limit(1 << 30)
    rows: list[Any] = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(reader, [])]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{path.name}, row {len(rows) + 1} (line {reader.line_num}): {len(cells)} cells under "
                    f"{len(names)} names",
                    todo='quote a text that holds the separator: "like, this"',
                )
            rows.append({name: _cell(name, cell) for name, cell in zip(names, cells, strict=True)})
    except csv.Error as error:
        raise DataError(f"{path.name}, row {len(rows) + 1}: {error}", expected="a CSV file with a header") from None
    return rows


def _cell(name: str, cell: str) -> Any:
    if name not in NUMBERS:
        return cell
    try:
        return int(cell) if cell.strip().isdecimal() else float(cell)
    except ValueError:
        return cell or None


def _texts(path: Path, text: str) -> list[Any]:
    del path
    return [line.strip() for line in text.split("\n") if line.strip()]


READERS: dict[str, Callable[[Path, str], list[Any]]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".csv": _table,
    ".tsv": _table,
    ".txt": _texts,
}
"""By ending."""
