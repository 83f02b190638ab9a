"""Digests: of plain data, of files, of a model's weights. All are sha256 in hexadecimal."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from kto_release.errors import RunError


def sha256_of(plain: Any) -> str:
    """sha256 of plain data: of its canonical JSON (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that a model is loaded from, by name: some repositories hold the same weights in other files too.

    As transformers chooses them: model.safetensors, else those of its index, else whatever is there.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        with suppress(ValueError, LookupError, AttributeError, TypeError):  # then loading says what is wrong with it
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / name for name in sorted(set(names))]
    return sorted(folder.glob("*.safetensors"))


def weights_digest(folder: Path) -> str:
    """Digest of a model's weights: of the sha256 of each safetensors file, by name.

    Raises `RunError` where the folder holds none.
    """
    files = weight_files(folder)
    if not files:
        raise RunError(f"no weights in {str(folder)!r}", expected="*.safetensors")
    return sha256_of({path.name: file_sha256(path) for path in files})
