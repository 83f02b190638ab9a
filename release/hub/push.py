"""The only writer to the Hub: stage, verify, promote.

The files of a release go in one commit to a branch of their own; what arrived there is verified; then one commit copies
it to the branch that people read, pinned to the verified commit and to what that branch held before. A reader never
sees half a release. Every step looks at what the Hub holds first, so the same command again finishes what was broken
off and changes nothing where all is done. Tokens come from the environment or the Hub's own store, and go nowhere else.
"""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import RemoteEntryNotFoundError, RevisionNotFoundError

from kto_release import __version__
from kto_release.digests import file_sha256
from kto_release.errors import HubError
from kto_release.files import write_atomically
from kto_release.hub import FAILURES, explain, is_unreachable
from kto_release.release.allowed import may_lie_beside
from kto_release.release.hub.files import holds, is_same, local_files, others, tree
from kto_release.release.hub.predecessor import with_successor
from kto_release.release.hub.state import observe
from kto_release.release.options import Target

NOTED = "staging-branches.txt"
"""Beside the bundle: the staging branches that were made, one a line, until they are deleted."""
STAGING = "kto-release-staging-"
"""Prefix of staging branches; the rest is the start of the release's digest."""


class Pushed(NamedTuple):
    """What the Hub holds now."""

    commit: str
    pull_request: str | None
    """Address of the pull request, where one was asked for."""
    verified: str
    """How what arrived was compared with what was meant."""
    changed: bool
    """False where all was there already."""
    private: bool
    """Whether the repository is private now."""
    beside: frozenset[str] = frozenset()
    """Files that people added, and that were left there."""
    removed: frozenset[str] = frozenset()
    """Files that are no longer on the branch."""
    trouble: HubError | None = None
    """What went wrong after the release was safe: the predecessor's card."""


Proof = Callable[[Path], str]
"""Looks at a folder with what came back (all but the weights), and says what it found right; raises what is wrong."""


def push(
    bundle: Path, digest: str, target: Target, *, endpoint: str | None = None, proof: Proof | None = None
) -> Pushed:
    """Publish the files of `bundle`, whose manifest has `digest`. Raises `HubError`, which says what the Hub holds.

    `proof` is tried on what was read back, before it is promoted.
    """
    hub = Repository(target, bundle, digest, endpoint, proof=proof)
    with hub.step("signing in"):
        hub.sign_in()
    with hub.step("checking the card's metadata"):
        hub.validate_card()
    with hub.step("creating the repository"):
        hub.create()
        hub.check_tag()
    head = hub.head(target.revision)
    with hub.step(f"looking at {str(head)[:12]}"):
        removed = hub.look_at_others(head)
        changed = head is None or not hub.holds(head)
    if changed and target.pull_request:
        return hub.propose()
    if changed:
        with hub.step("staging the files"):
            staged = hub.stage()
        with hub.step("verifying what arrived"):
            verified = hub.verify(staged)
        with hub.step("promoting the release"):
            head = hub.promote(staged)
    else:
        with hub.step("verifying what is there"):
            verified = hub.verify(str(head))
    with hub.step("tagging the release"):
        changed |= hub.tag(str(head))
    with hub.step("changing the repository's settings"):
        changed |= hub.open_up()
    with hub.step("cleaning up"):
        changed |= hub.remove_staging()
    trouble = None
    if target.predecessor and not target.private:
        try:
            with hub.step(f"pointing {target.predecessor} to this release"):
                changed |= hub.announce(target.predecessor)
        except HubError as error:
            trouble = error
    return Pushed(str(head), None, verified, changed, hub.private, hub.beside, removed, trouble)


class Repository:
    """The target repository, and what is known of its state."""

    def __init__(self, target: Target, bundle: Path, digest: str, endpoint: str | None, *, proof: Proof | None) -> None:
        self.target, self.repo_id, self.scratch, self.proof = target, target.repo_id, bundle.parent, proof
        self.goal = local_files(bundle)
        self.api = HfApi(endpoint=endpoint, library_name="kto-release", library_version=__version__)
        self.staging = STAGING + digest[:12]
        self.user = ""
        self.pull_request = False
        self.private = True
        self.beside: frozenset[str] = frozenset()
        """Files on the branch that people added, and that stay."""
        self.state = "nothing was changed"
        """What the Hub is known to hold, for messages where it can't be asked."""

    @contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """Turn whatever the Hub, the network or the client throws into one `HubError` that tells the remote state."""
        try:
            yield
        except FAILURES as error:
            problem, todo, _ = explain(error, self.repo_id, self.api.endpoint, self.user)
            state = self.state
            if self.user and not self.pull_request and not is_unreachable(error):
                state = (
                    observe(self.api, self.target, self.staging, self.goal, self.beside)
                    or f"{self.state} (when last seen)"
                )
            raise HubError(f"{doing} failed: {problem}\n  on the Hub: {state}", todo=todo) from None

    # The steps, in order

    def sign_in(self) -> None:
        """Find out who we are; nothing else tells a missing token from a missing repository."""
        self.user = self.api.whoami()["name"]

    def validate_card(self) -> None:
        """Let the Hub check the card's metadata before anything is created."""
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        card = self.goal.get("README.md")
        if card is None:
            return
        response = get_session().post(
            f"{self.api.endpoint}/api/validate-yaml",
            json={"content": card.path.read_text(encoding="utf-8"), "repoType": "model"},
            headers=build_hf_headers(library_name="kto-release", library_version=__version__),
        )
        if response.status_code == 400:
            problems = [str(error.get("message")) for error in response.json().get("errors", [])]
            raise HubError(
                "the Hub rejects the card's metadata:\n" + "\n".join(f"  - {problem}" for problem in problems),
                todo="mend the recipe's release section; nothing was changed on the Hub",
            )
        hf_raise_for_status(response)

    def create(self) -> None:
        """Create the repository, private until all is verified; one that exists must be as visible as asked."""
        self.api.create_repo(self.repo_id, private=True, exist_ok=True)
        info = self.api.repo_info(self.repo_id)
        self.private = bool(info.private)
        if self.target.private and info.private is False:
            raise HubError(
                f"{self.repo_id} is public, and the release is to be private\n  on the Hub: {self.state}",
                todo="kto-release publish --public, or make the repository private on the Hub",
            )
        self.state = f"the repository is there, and {self.target.revision} does not hold this release"

    def head(self, revision: str) -> str | None:
        """The commit that a branch points to; None where there is no such branch."""
        with self.step(f"looking at {revision}"):
            try:
                return str(self.api.repo_info(self.repo_id, revision=revision).sha)
            except RevisionNotFoundError:
                return None

    def look_at_others(self, head: str | None) -> frozenset[str]:
        """Find out what people added to the branch; what will be removed. Raises `HubError` where it can't stay."""
        if head is None:
            # A new branch begins as a copy of main.
            head = self.head("main")
        if head is None:
            return frozenset()
        found = others(self.api, self.repo_id, head, self.goal)
        if self.target.remove_others:
            return found.stale | found.beside | found.foreign
        if found.foreign:
            names = ", ".join(sorted(found.foreign))
            raise HubError(
                f"{self.repo_id} holds files that programs would read as parts of this release: {names}"
                f"\n  on the Hub: {self.state}",
                todo="--remove-others removes them; or move them to another repository",
            )
        self.beside = found.beside
        return found.stale

    def holds(self, revision: str) -> bool:
        """Whether a revision holds the release, and nothing beside it but what people added."""
        beside = self.beside
        if not self.target.remove_others:
            # At another time other files may have been there.
            there = tree(self.api, self.repo_id, revision).keys()
            beside |= {name for name in there - self.goal.keys() if may_lie_beside(name)}
        return holds(self.api, self.repo_id, revision, self.goal, beside)

    def check_tag(self) -> None:
        """Refuse a tag that names something else, before anything is sent: `create_tag` would not notice."""
        if not self.target.tag or self.target.pull_request:
            return
        there = self.tags().get(self.target.tag)
        # Asked by name: what an annotated tag points to is no commit.
        if there is not None and not self.holds(self.target.tag):
            raise HubError(
                f"the tag {self.target.tag!r} exists, and names another release (commit {there[:8]})"
                f"\n  on the Hub: {self.state}",
                todo="choose another --tag, or delete that one on the Hub",
            )

    def tags(self) -> dict[str, str]:
        """Commits by tag."""
        return {tag.name: str(tag.target_commit) for tag in self.api.list_repo_refs(self.repo_id).tags}

    def stage(self) -> str:
        """Send what is not there yet to the staging branch, in one commit, and return that commit."""
        branch = self.staging
        self._note_staging(branch)
        self.api.create_branch(self.repo_id, branch=branch, revision="main", exist_ok=True)
        commit = self._commit_files(branch)
        self.state = f"all files are on the branch {branch!r}, and {self.target.revision} does not hold this release"
        return commit

    def _commit_files(self, branch: str, beside: frozenset[str] = frozenset()) -> str:
        """Make a branch hold exactly these files, and those `beside`, in at most one commit."""
        head = str(self.api.repo_info(self.repo_id, revision=branch).sha)
        remote = tree(self.api, self.repo_id, head)
        changes: list[Any] = [
            CommitOperationAdd(name, file.path)
            for name, file in self.goal.items()
            if name not in remote or not is_same(remote[name], file)
        ]
        changes += [CommitOperationDelete(name) for name in sorted(remote.keys() - self.goal.keys() - beside)]
        if not changes:
            return head
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the Hub's remarks on the metadata were shown before
            made = self.api.create_commit(
                self.repo_id, changes, revision=branch, parent_commit=head, commit_message=self._message()
            )
        return str(made.oid)

    def _message(self) -> str:
        return f"Release {self.staging.removeprefix(STAGING)}" + (f" ({self.target.tag})" if self.target.tag else "")

    def verify(self, commit: str) -> str:
        """Read back what arrived and compare it with what was meant; returns how. `HubError` names every difference."""
        remote = tree(self.api, self.repo_id, commit)
        wrong = [f"{name}: missing" for name in sorted(self.goal.keys() - remote.keys())]
        more = sorted(remote.keys() - self.goal.keys() - self.beside)
        wrong += [f"{name}: not part of the release" for name in more]
        downloaded = compared = 0
        proved = ""
        with self._folder() as folder:
            for name in sorted(self.goal.keys() & remote.keys()):
                # A tokenizer can be large enough for LFS too, and the proof below needs it.
                lfs = remote[name].lfs if name.endswith(".safetensors") else None
                if lfs is not None and not self.target.read_back:
                    compared += 1
                    digest = lfs.sha256
                else:
                    downloaded += 1
                    digest = file_sha256(self._download(name, commit, folder))
                if digest != self.goal[name].sha256:
                    wrong.append(f"{name}: sha256 {digest[:12]}… there, {self.goal[name].sha256[:12]}… here")
            if self.proof is not None and not wrong:
                proved = f"; {self.proof(folder)}"
        if wrong:
            raise HubError(
                f"what arrived at {commit[:8]} is not what was sent:\n"
                + "\n".join(f"  - {line}" for line in wrong)
                + f"\n  on the Hub: {self.state}",
                todo=f"run the same command again; if it stays, delete the branch {self.staging!r} first",
            )
        how = f"{downloaded} files downloaded again and hashed"
        return how + (f", {compared} of weights compared by the Hub's sha256" if compared else "") + proved

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder for downloads, beside the bundle: weights may not fit into /tmp. That of a killed try is removed."""
        for left in self.scratch.glob(".verify-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix=".verify-") as folder:
            yield Path(folder)

    def _download(self, name: str, commit: str, folder: Path) -> Path:
        return Path(self.api.hf_hub_download(self.repo_id, name, revision=commit, local_dir=folder))

    def promote(self, staged: str) -> str:
        """Copy the verified commit to the branch that people read, in one commit, and return that."""
        revision = self.target.revision
        if revision != "main":
            self.api.create_branch(self.repo_id, branch=revision, revision="main", exist_ok=True)
        head = str(self.api.repo_info(self.repo_id, revision=revision).sha)
        stale = sorted(tree(self.api, self.repo_id, head).keys() - self.goal.keys() - self.beside)
        operations: list[Any] = [CommitOperationCopy(name, name, src_revision=staged) for name in self.goal]
        operations += [CommitOperationDelete(name) for name in stale]
        made = self.api.create_commit(
            self.repo_id, operations, revision=revision, parent_commit=head, commit_message=self._message()
        )
        self.state = f"{revision} holds this release (commit {str(made.oid)[:8]})"
        if not self.holds(str(made.oid)):
            raise HubError(
                f"{revision} does not hold what was verified\n  on the Hub: commit {made.oid}",
                todo=f"look at the repository: somebody may be changing it; the release is at {staged}",
            )
        return str(made.oid)

    def tag(self, commit: str) -> bool:
        """Tag the release where a tag is asked for; whether something changed."""
        if not self.target.tag or self.target.tag in self.tags():
            return False
        self.api.create_tag(self.repo_id, tag=self.target.tag, revision=commit)
        self.state += f", tagged {self.target.tag}"
        return True

    def open_up(self) -> bool:
        """Set access requests, then visibility: last, so that nobody sees what is not finished."""
        if not self.target.opens:
            return False
        info = self.api.model_info(self.repo_id)
        gated = self.target.gated is not None and (info.gated or False) != self.target.gated
        if gated:
            self.api.update_repo_settings(self.repo_id, gated=self.target.gated, repo_type="model")
        public = not self.target.private and bool(info.private)
        if public:
            self.api.update_repo_settings(self.repo_id, private=False, repo_type="model")
            self.private = False
            self.state += ", public"
        return gated or public

    def remove_staging(self) -> bool:
        """Delete staging branches, of this try and of this run's earlier ones; whether there were any.

        Another publisher may be at work: only what was noted here before it was made is ours.
        """
        own = {self.staging, *self._noted()}
        left = [b.name for b in self.api.list_repo_refs(self.repo_id).branches if b.name in own]
        for name in left:
            try:
                self.api.delete_branch(self.repo_id, branch=name)
            except RevisionNotFoundError:  # another process was faster
                continue
        (self.scratch / NOTED).unlink(missing_ok=True)
        return bool(left)

    def _noted(self) -> list[str]:
        """Staging branches that this run made, and has not deleted yet."""
        path = self.scratch / NOTED
        lines = path.read_text(encoding="utf-8").split() if path.is_file() else []
        return [line for line in lines if line.startswith(STAGING)]

    def _note_staging(self, branch: str) -> None:
        noted = self._noted()
        if branch not in noted:
            write_atomically(self.scratch / NOTED, "\n".join([*noted, branch]) + "\n")

    def announce(self, predecessor: str) -> bool:
        """Set new_version on the predecessor's card."""
        with self._folder() as folder:
            head = str(self.api.repo_info(predecessor).sha)
            try:
                path = self.api.hf_hub_download(predecessor, "README.md", revision=head, local_dir=folder)
                card = Path(path).read_bytes().decode("utf-8")
            except RemoteEntryNotFoundError:  # and no other: a card that can't be read now is not an empty one
                card = ""
        changed = with_successor(card, self.repo_id)
        if changed == card:
            return False
        change = CommitOperationAdd("README.md", changed.encode())
        self.api.create_commit(
            predecessor, [change], parent_commit=head, commit_message=f"Point to its successor, {self.repo_id}"
        )
        return True

    # As a pull request

    def propose(self) -> Pushed:
        """Open a pull request with the release, or continue the one that is open; a person merges it."""
        with self.step("opening the pull request"):
            title = self._message()
            found = [
                d
                for d in self.api.get_repo_discussions(self.repo_id, discussion_type="pull_request")
                if d.title == title and d.status in ("draft", "open")
            ]
            request = found[0] if found else self.api.create_pull_request(self.repo_id, title)
            self.pull_request = True
            self.state = f"pull request {request.num} is there, and main is untouched"
        reference = str(request.git_reference)
        with self.step("sending the files"):
            before = self.head(reference)
            commit = self._commit_files(reference, self.beside)
        with self.step("verifying what arrived"):
            verified = self.verify(commit)
        with self.step("opening the pull request for review"):
            # The site does not merge a draft, and the client only makes drafts.
            if request.status == "draft":
                self.api.change_discussion_status(self.repo_id, request.num, "open")
        return Pushed(commit, request.url, verified, changed=not found or commit != before, private=self.private)
