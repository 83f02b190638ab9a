"""The rows of one file, one after the other, each with its number: a million need no more memory than a thousand.

The datasets library reads Hub sets (hub_data.py) and `save_to_disk` folders. It does not read these files: its JSON and
CSV readers turn a bad line into an error of the whole file without its number, and make one type of a column, so that
"007" becomes 7 and a null label makes every label a float.
"""

import csv
import gzip
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from kto_release.errors import DataError

TEXT_KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
PACKINGS = ("", ".gz", ".zst")
SUFFIXES = (*(kind + packing for packing in PACKINGS for kind in TEXT_KINDS), ".parquet", ".arrow")
EXPECTED_FILES = ".jsonl, .ndjson, .json, .csv or .tsv (also .gz, .zst), or .parquet"
BLOCK = 1 << 20
ROWS_AT_ONCE = 1000
Readable = BinaryIO | gzip.GzipFile | io.BufferedReader
Numbered = Iterator[tuple[int, Mapping[str, Any]]]


def is_data(name: str) -> bool:
    """Whether a file of this name can be read, by its ending."""
    return name.lower().endswith(SUFFIXES)


def suffix_of(name: str) -> str:
    """The ending that says how a file is read, with its packing: ".jsonl.gz"; "" where there is none."""
    return max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")


def is_typeless(name: str) -> bool:
    """Whether every value of such a file is text: then "1" and "true" can only mean what they say."""
    return suffix_of(name).startswith((".csv", ".tsv"))


def rows_of(path: Path) -> Numbered:
    """(number from 1, row) of a file. A line's number in JSON lines, else the row's (a header is none).

    Raises `DataError` with the file's name, and the row's number where the fault is one row's.
    """
    suffix = suffix_of(path.name)
    if suffix in (".parquet", ".arrow"):
        yield from _table_rows(path, suffix)
        return
    import zstandard

    place = [0]
    try:
        with _opened(path, suffix) as file:
            if suffix.startswith((".csv", ".tsv")):
                yield from _delimited(path, file, "\t" if suffix.startswith(".tsv") else ",", place)
            elif suffix.startswith(".json.") or suffix == ".json":
                yield from _json(path, file, place)
            else:
                yield from _lines(path, file, place)
    except (EOFError, zstandard.ZstdError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path.name!r} is damaged or cut behind row {place[0]}: {error}",
            todo="copy or fetch it again; nothing of it was used",
        ) from None
    except OSError as error:
        raise DataError(f"{path.name!r} can't be read: {error.strerror or error}") from None


def _opened(path: Path, suffix: str) -> Readable:
    if suffix.endswith(".gz"):
        return gzip.open(path, "rb")
    if suffix.endswith(".zst"):
        return io.BufferedReader(_Zstandard(path), BLOCK)
    return path.open("rb", BLOCK)


class _Zstandard(io.RawIOBase):
    """The bytes of a .zst of any number of frames. Unlike zstandard's own reader it says when the last one is cut."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._file = path.open("rb")
        unpacker: Any = zstandard.ZstdDecompressor()
        self._new: Callable[[], Any] = unpacker.decompressobj
        self._frame = self._new()
        self._fresh, self._plain = True, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        rest = b""
        while not self._plain:
            packed = rest or self._file.read(BLOCK // 8)
            if not packed:
                if not self._fresh:
                    raise EOFError("the last Zstandard frame is not complete")
                return 0
            self._plain, rest, self._fresh = self._frame.decompress(packed), b"", False
            if self._frame.eof:
                rest = self._frame.unused_data
                self._frame, self._fresh = self._new(), True
                if rest and self._plain:
                    self._file.seek(-len(rest), io.SEEK_CUR)
                    rest = b""
        count = min(len(buffer), len(self._plain))
        buffer[:count], self._plain = self._plain[:count], self._plain[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _text(line: bytes, path: Path, number: int, of: str = "line") -> str:
    # Decoded line by line: a decoder of blocks finds a bad byte long before its line's turn, and names another one.
    if number <= 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path.name!r} is UTF-16", expected="UTF-8", todo="save it as UTF-8")
    try:
        return line.decode("utf-8-sig" if number <= 1 else "utf-8")
    except UnicodeDecodeError as error:
        number += line.count(b"\n", 0, error.start)
        row = "row" if of == "line" else "line"
        raise DataError(
            f"{path.name}, {row} {number}: not UTF-8: byte {error.start + 1} of the {of} is 0x{line[error.start]:02x}",
            todo="save the file as UTF-8",
        ) from None


def _lines(path: Path, file: Readable, place: list[int]) -> Numbered:
    for number, line in enumerate(file, 1):
        place[0] = number
        if not line.strip():
            continue
        text = _text(line, path, number)
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path.name}, row {number}: not valid JSON: {error}", todo="mend this line, or take it out"
            ) from None
        if not isinstance(row, dict):
            raise DataError(
                f"{path.name}, row {number}: {text[:60]!r} is no JSON object",
                todo="name the file .json if it is one JSON list" if isinstance(row, list) else None,
            )
        yield number, row


def _json(path: Path, file: Readable, place: list[int]) -> Numbered:
    """A JSON list of objects; or one under "data"; or, as many tools write it, JSON lines."""
    whole = file.read()
    try:
        found = json.loads(_text(whole, path, 1, of="file"))
    except (ValueError, RecursionError) as error:
        lines = [line for line in whole.splitlines() if line.strip()]
        if len(lines) > 1 and lines[0].strip().endswith(b"}"):
            yield from _lines(path, io.BufferedReader(io.BytesIO(whole)), place)
            return
        raise DataError(f"{path.name!r} is not valid JSON: {error}", expected="a JSON list of rows") from None
    if isinstance(found, dict):
        lists = [name for name, value in found.items() if isinstance(value, list)]
        # Whatever stands beside the one list describes the file, not its rows.
        found = found[lists[0]] if len(lists) == 1 and lists[0] in ("data", "rows", "train") else None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(
            f"{path.name!r} holds no list of rows", expected="a JSON list of objects, or JSON lines (.jsonl)"
        )
    for number, row in enumerate(found, 1):
        place[0] = number
        yield number, row


def _delimited(path: Path, file: Readable, delimiter: str, place: list[int]) -> Numbered:
    csv.field_size_limit(1 << 30)
    lines = (_text(line, path, n) for n, line in enumerate(file, 1))
    first = next(lines, "")
    if "," not in first and ";" in first and delimiter == ",":
        delimiter = ";"  # as Excel writes it where a comma is the decimal point
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None:
                header = [name.strip() for name in cells]
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise DataError(f"{path.name!r} has two columns {twice[0]!r}", todo="give each a name of its own")
                continue
            if not cells:
                continue
            place[0] += 1
            if len(cells) != len(header):
                raise DataError(
                    f"{path.name}, row {place[0]} (line {reader.line_num}): {len(cells)} cells under "
                    f"{len(header)} columns",
                    todo="put cells with the delimiter or a line end in them into quotes",
                )
            yield place[0], {name: cell or None for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path.name}, line {reader.line_num}: {error}") from None


def _table_rows(path: Path, suffix: str) -> Numbered:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        if suffix == ".arrow":
            batches = iter(pa.ipc.open_stream(pa.memory_map(str(path))))
        else:
            batches = pq.ParquetFile(path).iter_batches(batch_size=ROWS_AT_ONCE)
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except PermissionError as error:
        raise DataError(f"{path.name!r} can't be read: {error.strerror}") from None
    except (pa.ArrowException, OSError) as error:
        kind = "Arrow" if suffix == ".arrow" else "Parquet"
        raise DataError(f"{path.name!r} is no {kind} file: {str(error).splitlines()[0]}") from None
