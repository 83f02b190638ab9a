"""Small things to publish, for the tests of the Hub."""

import hashlib
import json
from pathlib import Path

from fake_hub import FakeHub, Repo

from kto_release.release.hub import local_files
from kto_release.release.options import Target

TOKEN = "hf_canaryTokenThatMustAppearNowhere0000"
DIGEST = "0123456789abcdef" * 4
STAGING = "kto-release-staging-0123456789ab"
TARGET = Target(
    repo_id="tester/tiny",
    revision="main",
    private=True,
    gated=None,
    tag=None,
    pull_request=False,
    predecessor=None,
    read_back=False,
)


def write_bundle(folder: Path, *, license_id: str = "apache-2.0", seed: str = "1", shards: int = 2) -> Path:
    """A folder with a card, small files and large ones: all that a push knows of a bundle."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nlicense: {license_id}\nlanguage:\n- en\n---\n# Tiny {seed}\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "seed": seed}))
    for number in range(1, shards + 1):
        content = hashlib.sha256(f"{seed} {number}".encode()).digest() * 100
        (folder / f"model-0000{number}-of-0000{shards}.safetensors").write_bytes(content)
    (folder / "records").mkdir()
    (folder / "records" / "iteration-1.json").write_text("{}\n")
    (folder / "release.json").write_text(json.dumps({"seed": seed}))
    return folder


def sha256_by_path(bundle: Path) -> dict[str, str]:
    """What a repository must hold after this bundle was published."""
    return {name: file.sha256 for name, file in local_files(bundle).items()}


def history(hub: FakeHub, repo_id: str = "tester/tiny", branch: str = "main") -> list[dict[str, str]]:
    """The files of every commit of a branch, newest first: everything that a reader of it ever saw."""
    repo: Repo = hub.repos[repo_id]
    seen, commit = [], repo.resolve(branch)
    while commit is not None:
        seen.append(repo.files(commit.oid))
        commit = repo.commits.get(commit.parent or "")
    return seen
