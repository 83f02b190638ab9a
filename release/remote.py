"""What a repository holds already, compared with a bundle: read, never written, for a dry run."""

from pathlib import Path
from typing import NamedTuple

from kto_release.release.hub.errors import FAILURES, explain
from kto_release.release.hub.files import LocalFile, is_same, local_files, tree
from kto_release.release.options import Target

TIMEOUT = 5.0
"""Seconds that a dry run waits for the Hub."""


class Changes(NamedTuple):
    """What publishing would change, or why that is not known."""

    new: list[str]
    changed: list[str]
    removed: list[str]
    same: int
    note: str | None
    """What is special: there is no repository yet, or it could not be asked."""


def compare(bundle: Path, target: Target, *, endpoint: str | None = None) -> Changes:
    """Look at the branch that would be promoted to. Nothing is an error: what can't be reached is said in one line."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    goal: dict[str, LocalFile] = local_files(bundle)
    api = HfApi(endpoint=endpoint)
    try:
        # Asked first because it fails at once without a network; the listing would be tried for half a minute.
        head = api.repo_info(target.repo_id, revision=target.revision, timeout=TIMEOUT).sha
        remote = tree(api, target.repo_id, str(head))
    except RepositoryNotFoundError:
        note = f"there is no {target.repo_id} yet, or this token may not see it: it would be made, private"
        return Changes(sorted(goal), [], [], 0, note)
    except RevisionNotFoundError:
        return Changes(sorted(goal), [], [], 0, f"there is no branch {target.revision} yet: it would be made")
    except FAILURES as error:
        problem = explain(error, target.repo_id, api.endpoint, "").problem
        return Changes([], [], [], 0, f"not compared with what the Hub holds: {problem}")
    shared = goal.keys() & remote.keys()
    changed = sorted(name for name in shared if not is_same(remote[name], goal[name]))
    return Changes(
        new=sorted(goal.keys() - remote.keys()),
        changed=changed,
        removed=sorted(remote.keys() - goal.keys()),
        same=len(shared) - len(changed),
        note=None,
    )
