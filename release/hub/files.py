"""The files of a bundle, the files of a repository, and whether they are the same."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError

from kto_release.digests import file_sha256
from kto_release.errors import ReleaseError
from kto_release.release.allowed import may_lie_beside, refused
from kto_release.release.manifest import MANIFEST, UNLISTED, read_any

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


def holds(
    api: HfApi, repo_id: str, revision: str, goal: dict[str, LocalFile], beside: frozenset[str] = frozenset()
) -> bool:
    """Whether a revision holds exactly these files, by the Hub's own hashes; those `beside` may be there too."""
    remote = tree(api, repo_id, revision)
    there = remote.keys() - beside
    return there == goal.keys() and all(is_same(remote[name], file) for name, file in goal.items())


class Others(NamedTuple):
    """Files at a revision that are not of the release that is to be there."""

    stale: frozenset[str]
    """Of the release that is there now, or of its names: a file of an earlier model, such as a shard."""
    beside: frozenset[str]
    """Added by people, and nothing that a reader would take for a part of a release."""
    foreign: frozenset[str]
    """Added by people, and read by programs as parts of a model: weights, code, configurations."""


def others(api: HfApi, repo_id: str, revision: str, goal: dict[str, LocalFile]) -> Others:
    """Look at a revision. What the release there lists is its own; the rest was put there by somebody."""
    names = tree(api, repo_id, revision).keys() - goal.keys()
    listed = _listed(api, repo_id, revision) if names else set()
    rest = names - listed - UNLISTED
    beside = frozenset(name for name in rest if may_lie_beside(name))
    rest -= {name for name in rest - beside if refused(name) is None}  # names of a release: an earlier one's
    return Others(frozenset(names - rest), beside, frozenset(rest - beside))


def _listed(api: HfApi, repo_id: str, revision: str) -> set[str]:
    """What the release.json at a revision lists; nothing where there is none, or it can't be read."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(api.hf_hub_download(repo_id, MANIFEST, revision=revision, local_dir=folder))
            return {file.path for file in read_any(path).files}
        except (EntryNotFoundError, ReleaseError):
            return set()
