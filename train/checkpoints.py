"""Checkpoints that are whole or not there: a seal with the size and sha256 of every file is written last."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kto_release import console
from kto_release.digests import file_sha256
from kto_release.files import write_atomically

SEAL = "complete.json"


def seal(folder: Path) -> None:
    """Declare a checkpoint whole."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(file_sha256, files))
    plain = {str(path.relative_to(folder)): digest for path, digest in zip(files, digests, strict=True)}
    write_atomically(folder / SEAL, json.dumps(plain, indent=2))


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint under `folder`, or None; damaged ones are named and passed over."""
    for path in _newest_first(folder):
        damage = _damage(path)
        if damage is None:
            return path
        console.warn(f"{path.name} is not used: {damage}")
    return None


def _newest_first(folder: Path) -> Iterator[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    yield from sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def _damage(folder: Path) -> str | None:
    if not (folder / SEAL).exists():
        return "it was not completed"
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        for name, digest in sealed.items():
            if file_sha256(folder / name) != digest:
                return f"{name} is damaged"
    except (OSError, ValueError) as error:
        return str(error)
    return None
