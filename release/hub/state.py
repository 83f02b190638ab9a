"""What a repository holds right now: asked after a failure, since a lost answer does not mean that nothing was done."""

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from kto_release.release.hub.errors import FAILURES
from kto_release.release.hub.files import LocalFile, holds
from kto_release.release.options import Target


def observe(api: HfApi, target: Target, staging: str, goal: dict[str, LocalFile]) -> str | None:
    """The state in words; None where the Hub can't be asked now."""
    try:
        info = api.repo_info(target.repo_id)
        refs = api.list_repo_refs(target.repo_id)
        branches = {branch.name: str(branch.target_commit) for branch in refs.branches}
        head = branches.get(target.revision)
        published = head is not None and holds(api, target.repo_id, head, goal)
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
