"""What a repository holds right now: compared with a bundle before anything is sent, asked for after a failure.

After a failure, since a lost answer does not mean that nothing was done. Nothing is written here.
"""

from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from kto_release.hub import FAILURES, explain
from kto_release.release.hub.files import LocalFile, holds, is_same, local_files, others, tree
from kto_release.release.options import Target

TIMEOUT = 5.0
"""Seconds that a dry run waits for the Hub."""


class Changes(NamedTuple):
    """What publishing would change, or why that is not known."""

    new: list[str]
    changed: list[str]
    removed: list[str]
    beside: list[str]
    """Added by people; they stay."""
    foreign: list[str]
    """Added by people, and in the way: publishing refuses, unless it is told to remove them."""
    same: int
    note: str | None
    """What is special: there is no repository yet, or it could not be asked."""


def compare(bundle: Path, target: Target, *, endpoint: str | None = None) -> Changes:
    """Look at the branch that would be promoted to. Nothing is an error: what can't be reached is said in one line."""
    goal: dict[str, LocalFile] = local_files(bundle)
    api = HfApi(endpoint=endpoint)
    try:
        # Asked first because it fails at once without a network; the listing would be tried for half a minute.
        head = api.repo_info(target.repo_id, revision=target.revision, timeout=TIMEOUT).sha
        remote = tree(api, target.repo_id, str(head))
        found = others(api, target.repo_id, str(head), goal)
    except RepositoryNotFoundError:
        note = f"there is no {target.repo_id} yet, or this token may not see it: it would be made, private"
        return Changes(sorted(goal), [], [], [], [], 0, note)
    except RevisionNotFoundError:
        return Changes(sorted(goal), [], [], [], [], 0, f"there is no branch {target.revision} yet: it would be made")
    except FAILURES as error:
        problem = explain(error, target.repo_id, api.endpoint, "").problem
        return Changes([], [], [], [], [], 0, f"not compared with what the Hub holds: {problem}")
    shared = goal.keys() & remote.keys()
    changed = sorted(name for name in shared if not is_same(remote[name], goal[name]))
    return Changes(
        new=sorted(goal.keys() - remote.keys()),
        changed=changed,
        removed=sorted(remote.keys() - goal.keys() if target.remove_others else found.stale),
        beside=[] if target.remove_others else sorted(found.beside),
        foreign=[] if target.remove_others else sorted(found.foreign),
        same=len(shared) - len(changed),
        note=None,
    )


def observe(
    api: HfApi, target: Target, staging: str, goal: dict[str, LocalFile], beside: frozenset[str] = frozenset()
) -> str | None:
    """The state in words; None where the Hub can't be asked now."""
    try:
        info = api.repo_info(target.repo_id)
        refs = api.list_repo_refs(target.repo_id)
        branches = {branch.name: str(branch.target_commit) for branch in refs.branches}
        head = branches.get(target.revision)
        published = head is not None and holds(api, target.repo_id, head, goal, beside)
        staged = not published and staging in branches and holds(api, target.repo_id, branches[staging], goal)
    except RepositoryNotFoundError:
        return "there is no such repository, or none that you can see"
    except FAILURES:
        return None
    if published:
        tagged = target.tag in {tag.name for tag in refs.tags}
        text = f"{target.revision} holds this release (commit {str(head)[:8]})"
        text += (f", tagged {target.tag}" if tagged else "") + ("" if info.private else ", public")
    else:
        where = f"all files are on the branch {staging!r}" if staged else "the repository is there"
        text = f"{where}, and {target.revision} does not hold this release"
    if staging in branches:
        text += f"; a staging branch {staging!r} is left, which the same command continues from"
    return text
