"""Publishing to a Hub: staged on a branch, verified there, promoted in one commit."""

import shutil
from pathlib import Path

import pytest
from fake_hub import FakeHub
from releases import DIGEST, STAGING, TARGET, TOKEN, history, sha256_by_path, write_bundle

from kto_release.errors import HubError, ReleaseError
from kto_release.release.hub.push import push


def test_a_release_arrives_whole_in_one_commit_to_main(hub: FakeHub, bundle: Path) -> None:
    """Main goes from its first commit to the whole release in one step, and holds exactly the bundle's files."""
    pushed = push(bundle, DIGEST, TARGET, endpoint=hub.url)
    repo = hub.repos["tester/tiny"]
    assert history(hub) == [sha256_by_path(bundle), {}]
    assert repo.branches == {"main": pushed.commit}
    assert pushed.changed
    assert pushed.verified == "4 files downloaded again and hashed, 2 of weights compared by the Hub's sha256"


def test_a_new_repository_is_private(hub: FakeHub, bundle: Path) -> None:
    """Nothing becomes public unless it is asked for."""
    push(bundle, DIGEST, TARGET, endpoint=hub.url)
    assert hub.repos["tester/tiny"].private is True


def test_public_only_after_the_release_is_there(hub: FakeHub, bundle: Path) -> None:
    """With --public the repository is created private and opened by the last request but the clean-up."""
    push(bundle, DIGEST, TARGET._replace(private=False), endpoint=hub.url)
    assert hub.repos["tester/tiny"].private is False
    writes = [path.rsplit("/", 2)[-2:] for _, path in hub.writes()]
    promoted, opened = writes.index(["commit", "main"]), writes.index(["tiny", "settings"])
    assert promoted < opened


def test_gated_is_set_before_public(hub: FakeHub, bundle: Path) -> None:
    """A gated release is never open without its gate."""
    seen: list[tuple[bool, object]] = []
    hub.before = lambda *_: seen.append((hub.repos["tester/tiny"].private, hub.repos["tester/tiny"].gated))
    hub.create("tester/tiny", private=True)
    push(bundle, DIGEST, TARGET._replace(private=False, gated="manual"), endpoint=hub.url)
    assert (hub.repos["tester/tiny"].private, hub.repos["tester/tiny"].gated) == (False, "manual")
    assert (False, False) not in seen


def test_again_changes_nothing(hub: FakeHub, bundle: Path) -> None:
    """A finished publish run again sends no request that writes, and says so."""
    first = push(bundle, DIGEST, TARGET._replace(tag="v1.0"), endpoint=hub.url)
    before = len(hub.writes())
    second = push(bundle, DIGEST, TARGET._replace(tag="v1.0"), endpoint=hub.url)
    assert second == first._replace(changed=False)
    assert hub.writes()[before:] == [("POST", "/api/repos/create")]  # answered with 409: it exists


def test_files_that_the_release_does_not_have_vanish(hub: FakeHub, tmp_path: Path, bundle: Path) -> None:
    """Shards and files of an older release don't stay behind on main."""
    push(write_bundle(tmp_path / "old", seed="0", shards=3), "f" * 64, TARGET, endpoint=hub.url)
    push(bundle, DIGEST, TARGET, endpoint=hub.url)
    assert hub.repos["tester/tiny"].files("main") == sha256_by_path(bundle)
    assert ".gitattributes" in hub.repos["tester/tiny"].resolve("main").tree  # type: ignore[union-attr]


def test_large_files_are_sent_once(hub: FakeHub, bundle: Path) -> None:
    """Promoting does not send the weights a second time."""
    push(bundle, DIGEST, TARGET, endpoint=hub.url)
    weights = {digest for name, digest in sha256_by_path(bundle).items() if name.endswith(".safetensors")}
    assert sorted(hub.uploaded) == sorted(weights)


def test_unchanged_weights_are_not_sent_again(hub: FakeHub, bundle: Path) -> None:
    """A new card for the same weights sends only the card."""
    push(bundle, DIGEST, TARGET, endpoint=hub.url)
    sent = len(hub.uploaded)
    (bundle / "README.md").write_text("---\nlicense: mit\n---\nBetter words.\n")
    push(bundle, "e" * 64, TARGET, endpoint=hub.url)
    assert len(hub.uploaded) == sent
    assert hub.repos["tester/tiny"].files("main") == sha256_by_path(bundle)


def test_read_back_downloads_the_weights(hub: FakeHub, bundle: Path) -> None:
    """With --read-back every byte comes back, and the record says so."""
    pushed = push(bundle, DIGEST, TARGET._replace(read_back=True), endpoint=hub.url)
    assert pushed.verified == "6 files downloaded again and hashed"
    downloads = {path for method, path in hub.requests if method == "GET" and path.endswith(".safetensors")}
    assert len(downloads) == 2


def test_what_arrives_damaged_is_never_promoted(hub: FakeHub, bundle: Path) -> None:
    """A Hub that stores other bytes than it was sent is found out; main stays as it was."""

    def damage(_number: int, method: str, path: str) -> None:
        if method == "HEAD" and path.endswith("config.json"):
            commit = hub.repos["tester/tiny"].resolve(STAGING)
            assert commit is not None, "staged"
            commit.tree["config.json"] = hub.store("config.json", b"{}" + b" " * 36)

    hub.before = damage
    with pytest.raises(HubError) as caught:
        push(bundle, DIGEST, TARGET, endpoint=hub.url)
    digest, other = sha256_by_path(bundle)["config.json"][:12], hub.store("", b"{}" + b" " * 36).sha256[:12]
    assert f"  - config.json: sha256 {other}… there, {digest}… here" in str(caught.value)
    assert history(hub) == [{}]


def test_what_came_back_is_proved_before_it_is_promoted(hub: FakeHub, bundle: Path) -> None:
    """The proof sees all files but weights as they were downloaded; where it fails, main stays as it was.

    A tokenizer can be a large file, which goes through LFS: without it nothing could be proved.
    """
    seen: list[list[str]] = []

    def proof(folder: Path) -> str:
        seen.append(sorted(path.name for path in folder.iterdir() if path.is_file()))
        return "looked at"

    def refuse(folder: Path) -> str:
        raise ReleaseError("the template gives other ids")

    (bundle / "tokenizer.model").write_bytes(b"large enough for LFS")
    pushed = push(bundle, DIGEST, TARGET._replace(revision="other"), endpoint=hub.url, proof=proof)
    commit = hub.repos["tester/tiny"].resolve("other")
    assert commit is not None, "pushed"
    assert commit.tree["tokenizer.model"].lfs
    assert seen == [["README.md", "config.json", "release.json", "tokenizer.model"]]
    assert pushed.verified.endswith("2 of weights compared by the Hub's sha256; looked at")
    with pytest.raises(ReleaseError, match="the template gives other ids"):
        push(bundle, DIGEST, TARGET, endpoint=hub.url, proof=refuse)
    assert history(hub) == [{}]


def test_a_file_that_was_ignored_is_missed(hub: FakeHub, bundle: Path) -> None:
    """A Hub that leaves a file out of the commit (a .gitignore there does that) is found out."""

    def forget(_number: int, method: str, path: str) -> None:
        commit = hub.repos["tester/tiny"].resolve(STAGING) if "tester/tiny" in hub.repos else None
        if method == "GET" and "/tree/" in path and commit is not None:
            commit.tree.pop("records/iteration-1.json", None)

    hub.before = forget
    with pytest.raises(HubError, match=r"records/iteration-1\.json: missing"):
        push(bundle, DIGEST, TARGET, endpoint=hub.url)
    assert history(hub) == [{}]


def test_tag_names_the_promoted_commit(hub: FakeHub, bundle: Path) -> None:
    """--tag v1.0 names the commit that main got."""
    pushed = push(bundle, DIGEST, TARGET._replace(tag="v1.0"), endpoint=hub.url)
    assert hub.repos["tester/tiny"].tags == {"v1.0": pushed.commit}


def test_a_tag_of_another_release_is_refused_before_anything_is_sent(
    hub: FakeHub, bundle: Path, tmp_path: Path
) -> None:
    """The client's create_tag(exist_ok=True) would keep the old tag in silence."""
    old = push(write_bundle(tmp_path / "old", seed="0"), "f" * 64, TARGET._replace(tag="v1.0"), endpoint=hub.url)
    before = hub.writes()
    with pytest.raises(HubError) as caught:
        push(bundle, DIGEST, TARGET._replace(tag="v1.0"), endpoint=hub.url)
    assert str(caught.value) == (
        f"the tag 'v1.0' exists, and names another release (commit {old.commit[:8]})\n"
        "  on the Hub: the repository is there, and main does not hold this release\n"
        "  to do: choose another --tag, or delete that one on the Hub"
    )
    assert hub.writes() == [*before, ("POST", "/api/repos/create")]


def test_another_branch_leaves_main_alone(hub: FakeHub, bundle: Path) -> None:
    """--revision publishes to a branch, made if it is not there."""
    pushed = push(bundle, DIGEST, TARGET._replace(revision="iteration-1"), endpoint=hub.url)
    repo = hub.repos["tester/tiny"]
    assert repo.files("iteration-1") == sha256_by_path(bundle)
    assert repo.files("main") == {}
    assert repo.branches["iteration-1"] == pushed.commit
    assert repo.branches.keys() == {"main", "iteration-1"}


def test_a_public_repository_is_no_place_for_a_private_release(hub: FakeHub, bundle: Path) -> None:
    """create_repo(private=True, exist_ok=True) would ignore that the repository is public."""
    hub.create("tester/tiny")
    with pytest.raises(HubError) as caught:
        push(bundle, DIGEST, TARGET, endpoint=hub.url)
    assert str(caught.value) == (
        "tester/tiny is public, and the release is to be private\n  on the Hub: nothing was changed\n"
        "  to do: kto-release publish --public, or make the repository private on the Hub"
    )


def test_staging_of_an_earlier_try_is_removed(hub: FakeHub, bundle: Path) -> None:
    """The staging branch of a release that broke off here is cleaned away; that of another publisher stays."""
    repo = hub.create("tester/tiny", private=True)
    for name in ("kto-release-staging-old", "kto-release-staging-of-others"):
        repo.branches[name] = repo.branches["main"]
    (bundle.parent / "staging-branches.txt").write_text("kto-release-staging-old\n")
    push(bundle, DIGEST, TARGET, endpoint=hub.url)
    assert hub.repos["tester/tiny"].branches.keys() == {"main", "kto-release-staging-of-others"}
    assert not (bundle.parent / "staging-branches.txt").exists()


def test_predecessor_points_to_its_successor_once(hub: FakeHub, bundle: Path) -> None:
    """new_version is written to the predecessor's card, whose other text stays, and not twice."""
    card = b"---\nlicense: mit\n---\n# Old\n\nText.\n"
    hub.create("tester/old", files={"README.md": card})
    target = TARGET._replace(private=False, predecessor="tester/old")
    push(bundle, DIGEST, target, endpoint=hub.url)
    push(bundle, DIGEST, target, endpoint=hub.url)
    assert hub.read("tester/old", "README.md").decode() == (
        "---\nlicense: mit\nnew_version: tester/tiny\n---\n# Old\n\nText.\n"
    )
    assert len(history(hub, "tester/old")) == 2


def test_a_private_release_is_not_announced(hub: FakeHub, bundle: Path) -> None:
    """The predecessor's public card does not tell the name of a private successor."""
    hub.create("tester/old", files={"README.md": b"---\nlicense: mit\n---\n"})
    push(bundle, DIGEST, TARGET._replace(predecessor="tester/old"), endpoint=hub.url)
    assert len(history(hub, "tester/old")) == 1


def test_pull_request_holds_the_release_and_leaves_main(hub: FakeHub, bundle: Path) -> None:
    """--pr: the release stands in a pull request that is open for review, and merging it gives main the release."""
    pushed = push(bundle, DIGEST, TARGET._replace(pull_request=True), endpoint=hub.url)
    repo = hub.repos["tester/tiny"]
    assert repo.files("refs/pr/1") == sha256_by_path(bundle)
    assert history(hub) == [{}]
    assert [pull.status for pull in repo.pull_requests] == ["open"]
    assert pushed.pull_request == f"{hub.url}/tester/tiny/discussions/1"
    from huggingface_hub import HfApi

    HfApi(endpoint=hub.url, token=TOKEN).merge_pull_request("tester/tiny", 1)
    assert repo.files("main") == sha256_by_path(bundle)


def test_pull_request_again_is_the_same_one(hub: FakeHub, bundle: Path) -> None:
    """Run again, --pr continues its own pull request and changes nothing."""
    target = TARGET._replace(pull_request=True)
    first = push(bundle, DIGEST, target, endpoint=hub.url)
    second = push(bundle, DIGEST, target, endpoint=hub.url)
    assert second == first._replace(changed=False)
    assert len(hub.repos["tester/tiny"].pull_requests) == 1


def test_merged_pull_request_is_published_already(hub: FakeHub, bundle: Path) -> None:
    """After a person merged it, --pr opens no second one."""
    from huggingface_hub import HfApi

    target = TARGET._replace(pull_request=True)
    push(bundle, DIGEST, target, endpoint=hub.url)
    HfApi(endpoint=hub.url, token=TOKEN).merge_pull_request("tester/tiny", 1)
    again = push(bundle, DIGEST, target, endpoint=hub.url)
    assert (again.changed, again.pull_request) == (False, None)
    assert len(hub.repos["tester/tiny"].pull_requests) == 1


def test_somebody_else_changes_main_meanwhile(hub: FakeHub, bundle: Path) -> None:
    """A commit to main between verification and promotion stops the promotion (412) instead of being overwritten."""

    def intrude(_number: int, method: str, path: str) -> None:
        if (method, path) == ("POST", "/api/models/tester/tiny/commit/main"):
            hub.before = None
            repo = hub.repos["tester/tiny"]
            repo.add_commit("main", "theirs", {"theirs.txt": hub.store("theirs.txt", b"theirs")})

    hub.before = intrude
    with pytest.raises(HubError) as caught:
        push(bundle, DIGEST, TARGET, endpoint=hub.url)
    assert str(caught.value) == (
        "promoting the release failed: tester/tiny was changed by somebody while this ran (412)"
        " (The parent commit is not the head of this branch: a commit has happened since.)\n"
        f"  on the Hub: all files are on the branch {STAGING!r}, and main does not hold this release;"
        f" a staging branch {STAGING!r} is left, which the same command continues from\n"
        "  to do: run the same command again: what has arrived is not sent twice"
    )
    assert hub.repos["tester/tiny"].files("main").keys() == {"theirs.txt"}
    sent = len(hub.uploaded)
    push(bundle, DIGEST, TARGET, endpoint=hub.url)
    there = hub.repos["tester/tiny"].files("main")
    assert there.pop("theirs.txt")  # kept: the release takes nobody's files away
    assert there == sha256_by_path(bundle)
    assert len(hub.uploaded) == sent


def test_bundle_folder_stays_as_it_is(hub: FakeHub, bundle: Path, tmp_path: Path) -> None:
    """Publishing writes nothing into the bundle: no cache folder that the next publish would send."""
    shutil.copytree(bundle, tmp_path / "copy")
    push(bundle, DIGEST, TARGET, endpoint=hub.url)
    assert sha256_by_path(bundle) == sha256_by_path(tmp_path / "copy")
