"""Files that survive a kill at any instant: written whole or not at all, appended line by line; and records."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from kto_release import __version__
from kto_release.errors import RunError

FULL = 2**20
"""Bytes: with less free space a write that failed, failed for that."""
RecordT = TypeVar("RecordT", bound=BaseModel)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part, whenever the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp gives 0600; a shared run must stay readable
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record, atomically and last."""
    write_atomically(path, record.model_dump_json(indent=2) + "\n")


def read_record(path: Path, kind: type[RecordT]) -> RecordT | None:
    """The record at `path`, or None where there is none. Raises `RunError` where it is damaged."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise RunError(
            f"the record {str(path)!r} is damaged: {str(error).splitlines()[0]}",
            expected=f"a {kind.__name__} as this version of kto-release ({__version__}) writes it",
            todo="restore the file, or remove it to do its stage again",
        ) from None


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one line and force it to disk: after a kill at any instant at most this line is lost or cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that `append_jsonl` wrote; a last line cut by a kill is left out, and cut off the file.

    Raises `RunError` where any other line is no JSON object.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    rows = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise RunError(f"{str(path)!r}, line {number}: not a JSON object", todo="restore or remove the file")
        rows.append(row)
    return rows


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Say that the disk is full, in whatever words a library says it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_full(folder, error):
            raise
        raise RunError(
            f"the disk of {str(folder)!r} is full: {str(error).splitlines()[0]}",
            todo="free some space; the same command then goes on from what is complete",
        ) from error


def _is_full(folder: Path, error: BaseException) -> bool:
    texts = ("No space left on device", "Disk quota exceeded")
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(t in str(cause) for t in texts):
            return True
        cause = cause.__cause__ or cause.__context__
    # torch.save says "iostream error" and no more; what it wrote until then has filled the disk.
    return folder.exists() and shutil.disk_usage(folder).free < FULL
