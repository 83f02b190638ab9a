"""The files of a bundle, the files of a repository, and whether they are the same."""

from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi

from kto_release.digests import file_sha256

NOT_OURS = frozenset({".gitattributes"})


class LocalFile(NamedTuple):
    """One file of the bundle."""

    path: Path
    size: int
    sha256: str


def local_files(bundle: Path) -> dict[str, LocalFile]:
    """Every file of the bundle by its path in the repository, the manifest and a signature included."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    return {p.relative_to(bundle).as_posix(): LocalFile(p, p.stat().st_size, file_sha256(p)) for p in files}


def tree(api: HfApi, repo_id: str, revision: str) -> dict[str, Any]:
    """The files at a revision by path, but those that the Hub itself keeps there."""
    entries = api.list_repo_tree(repo_id, recursive=True, revision=revision)
    return {e.path: e for e in entries if hasattr(e, "blob_id") and e.path not in NOT_OURS}


def is_same(remote: Any, file: LocalFile) -> bool:
    """Whether the Hub's entry and our file are the same, by the hash that the Hub gives for it."""
    from huggingface_hub.utils.sha import git_hash

    if remote.size != file.size:
        return False
    if remote.lfs is not None:
        return str(remote.lfs.sha256) == file.sha256
    return str(remote.blob_id) == git_hash(file.path.read_bytes())


def holds(api: HfApi, repo_id: str, revision: str, goal: dict[str, LocalFile]) -> bool:
    """Whether a revision holds exactly these files, by the Hub's own hashes."""
    remote = tree(api, repo_id, revision)
    return remote.keys() == goal.keys() and all(is_same(remote[name], file) for name, file in goal.items())
