"""Checkpoints that are whole or not there: a seal with the size and sha256 of every file is written last."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kto_release import console
from kto_release.digests import file_sha256
from kto_release.files import write_atomically
from kto_release.train.waiting import from_all, from_main, together

SEAL = "complete.json"


def seal(folder: Path, state: Any) -> None:
    """Declare a checkpoint whole. Every process reads its share of the files; the main one writes the seal."""
    with together(state):
        files = from_main(state, _files(folder) if state.is_main_process else None)
        mine = files[state.process_index :: state.num_processes]
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(file_sha256, (folder / name for name in mine)))
        plain: dict[str, str] = {}
        for share in from_all(state, dict(zip(mine, digests, strict=True))):
            plain |= share
        if state.is_main_process:
            write_atomically(folder / SEAL, json.dumps(plain, indent=2, sort_keys=True))


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    return sorted(str(path.relative_to(folder)) for path in found)


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
