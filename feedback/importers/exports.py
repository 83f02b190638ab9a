"""The records of an exported file, one after the other, each with its number."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kto_release.errors import DataError
from kto_release.feedback.files import EXPECTED_FILES, is_data, is_typeless, rows_of, suffix_of


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, record). An object that is no list is one record; JSON within CSV cells is read.

    JSON lines, CSV and Parquet are streamed; a .json list is one value, and has to fit into memory.
    """
    if not path.is_file():
        raise DataError(f"no file {str(path)!r}", todo="name the files of the export")
    if not is_data(path.name):
        raise DataError(f"{path.name!r} is of no kind that can be read", expected=EXPECTED_FILES)
    single = _object(path) if suffix_of(path.name) == ".json" else None
    if single is not None:
        yield 1, single
        return
    for number, row in rows_of(path):
        yield number, {name: _cell(cell) for name, cell in row.items()} if is_typeless(path.name) else dict(row)


def _object(path: Path) -> dict[str, Any] | None:
    """The object that a .json file is, where it is one: some exports stand inside of one."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"{"):
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return None  # JSON lines under this name, or a fault that `rows_of` tells with its place
    return found if isinstance(found, dict) else None


def unwrapped(record: Mapping[str, Any], key: str | None) -> list[dict[str, Any]]:
    """The records that stand in a list under `key`, "data" or "rows"; else the record alone."""
    inside = record.get(key) if key is not None else None
    if not isinstance(inside, list):
        usual = [name for name in ("data", "rows") if isinstance(record.get(name), list)]
        if len(usual) != 1:
            return [dict(record)]
        key, inside = usual[0], record[usual[0]]
    if not all(isinstance(row, Mapping) for row in inside):
        raise DataError(f"{key!r} holds something else than records")
    return inside


def _cell(cell: Any) -> Any:
    if isinstance(cell, str) and cell[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell
