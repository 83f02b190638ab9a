"""A JSON file that holds a list of objects, plain or packed: the form of all of alpaca_eval's files."""

import gzip
import json
import lzma
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_release.errors import DataError

SHOWN_ROWS = 10
"""How many wrong rows a message names."""


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON file, plain or packed by gzip or xz, that holds a list of them. Raises `DataError`."""
    try:
        # utf-8-sig: some editors put a mark at the start of a file, which is no part of its text.
        rows = json.loads(_unpacked(path.read_bytes()).decode("utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"no such file: {str(path)!r}", expected="a JSON file in AlpacaEval's format") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} can't be read: {error}", expected="a JSON file in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is no JSON: {error}", expected="a list of objects") from None
    if not isinstance(rows, list) or not rows:
        held = "an empty list" if rows == [] else type(rows).__name__
        raise DataError(f"{str(path)!r} holds {held}", expected="a list of objects with 'instruction' in each")
    refuse(path.name, "not an object", [not isinstance(row, dict) for row in rows])
    return rows


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
