"""What a user sees when the Hub says no, or nothing; and what it then holds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from releases import DIGEST, STAGING, TARGET, TOKEN, history, sha256_by_path, write_bundle

from kto_release.errors import HubError
from kto_release.hub import explain
from kto_release.release.hub.push import Pushed, push
from kto_release.release.options import Target

pytestmark = pytest.mark.slow

AGAIN = "run the same command again: what has arrived is not sent twice"
LOGIN = "hf auth login, or set HF_TOKEN to a token that may write to tester"
LEFT = f"a staging branch {STAGING!r} is left, which the same command continues from"


def failed(hub: FakeHub, bundle: Path) -> str:
    with pytest.raises(HubError) as caught:
        push(bundle, DIGEST, TARGET, endpoint=hub.url)
    return str(caught.value).replace(hub.url, "HUB")


def test_no_token(hub: FakeHub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token nothing is asked of the Hub, and the message says how to get one."""
    monkeypatch.delenv("HF_TOKEN")
    assert failed(hub, bundle) == (
        f"signing in failed: there is no token for HUB\n  on the Hub: nothing was changed\n  to do: {LOGIN}"
    )
    assert hub.writes() == []


def test_unknown_token(hub: FakeHub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that the Hub does not know (401) is told from a missing repository, and is not shown."""
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message = failed(hub, bundle)
    assert message == (
        f"signing in failed: HUB does not accept the token\n  on the Hub: nothing was changed\n  to do: {LOGIN}"
    )


def test_no_rights(hub: FakeHub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace of somebody else (403) names who we are."""
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert failed(hub, bundle) == (
        "creating the repository failed: 'other' has no right to write to tester/tiny"
        ' (You don\'t have the rights to create a model under the namespace "tester")\n'
        "  on the Hub: there is no such repository, or none that you can see\n"
        f"  to do: {LOGIN}"
    )


def test_rejected_metadata(hub: FakeHub, tmp_path: Path) -> None:
    """Metadata that the Hub rejects is found before the repository is created."""
    bundle = write_bundle(tmp_path / "bundle", license_id="not-a-license")
    assert failed(hub, bundle) == (
        "the Hub rejects the card's metadata:\n"
        '  - "license" must be one of the known licenses\n'
        "  to do: mend the recipe's release section; nothing was changed on the Hub"
    )
    assert hub.repos == {}


def test_repository_vanishes(hub: FakeHub, bundle: Path) -> None:
    """A repository that is deleted while it is published to (404)."""
    hub.fail("POST", "/preupload/", "none", call=hub.repos.clear)
    assert failed(hub, bundle) == (
        "staging the files failed: tester/tiny or a part of it is not there (404) (Repository not found)\n"
        "  on the Hub: there is no such repository, or none that you can see\n"
        f"  to do: {AGAIN}, or mend release.repo_id"
    )


@pytest.mark.parametrize(
    ("status", "problem", "todo"),
    [
        (400, "HUB refused (400)", AGAIN),
        (402, "the account must pay for this", "look at the account's billing page"),
        (403, "'tester' has no right to write to tester/tiny", LOGIN),
        (404, "tester/tiny or a part of it is not there (404)", f"{AGAIN}, or mend release.repo_id"),
        (409, "tester/tiny is being changed by something else (409)", AGAIN),
        (412, "tester/tiny was changed by somebody while this ran (412)", AGAIN),
        (429, "too many requests (429)", f"wait 7 s; {AGAIN}"),
        (500, "HUB failed (500)", AGAIN),
        (503, "HUB failed (503)", AGAIN),
    ],
)
def test_a_refused_commit(hub: FakeHub, bundle: Path, status: int, problem: str, todo: str) -> None:
    """Each refusal of the commit has its own words; main is untouched, and the message says what is left."""
    hub.fail("POST", "/commit/", status, headers={"Retry-After": "7"})
    assert failed(hub, bundle) == (
        f"staging the files failed: {problem} (on demand)\n"
        f"  on the Hub: the repository is there, and main does not hold this release; {LEFT}\n"
        f"  to do: {todo}"
    )
    assert history(hub) == [{}]


def test_dropped_connection(hub: FakeHub, bundle: Path) -> None:
    """A connection that breaks in the middle of the commit."""
    hub.fail("POST", "/commit/", "drop")
    assert failed(hub, bundle) == (
        "staging the files failed: the connection to HUB failed: Server disconnected without sending a response.\n"
        f"  on the Hub: the repository is there, and main does not hold this release; {LEFT}\n"
        f"  to do: {AGAIN}"
    )


def test_upload_that_breaks(hub: FakeHub, bundle: Path) -> None:
    """A large file that can't be stored; the address of the upload, which may be signed, is not shown."""
    hub.fail("PUT", "/lfs/", 507)
    message = failed(hub, bundle)
    assert message == (
        "staging the files failed: HUB failed (507) (on demand)\n"
        f"  on the Hub: the repository is there, and main does not hold this release; {LEFT}\n"
        f"  to do: {AGAIN}"
    )


def test_an_answer_that_is_no_json(hub: FakeHub, bundle: Path) -> None:
    """A proxy's page in place of an answer."""
    hub.fail("POST", "/preupload/", 200, body="<html>please log in</html>")
    assert failed(hub, bundle) == (
        "staging the files failed: HUB answered in a way that can't be understood:"
        " Expecting value: line 1 column 1 (char 0)\n"
        f"  on the Hub: the repository is there, and main does not hold this release; {LEFT}\n"
        f"  to do: {AGAIN}"
    )


def test_unreachable(hub: FakeHub, bundle: Path) -> None:
    """Nothing listens at the endpoint."""
    with pytest.raises(HubError) as caught:
        push(bundle, DIGEST, TARGET, endpoint="http://127.0.0.1:9")
    assert str(caught.value) == (
        "signing in failed: the connection to http://127.0.0.1:9 failed: [Errno 111] Connection refused\n"
        "  on the Hub: nothing was changed\n"
        f"  to do: {AGAIN}"
    )


def test_failure_after_promotion_says_that_the_release_is_there(hub: FakeHub, bundle: Path) -> None:
    """When only the tag fails, nobody must think that nothing was published."""
    hub.fail("POST", "/tag/", 500)
    with pytest.raises(HubError) as caught:
        push(bundle, DIGEST, TARGET._replace(tag="v1.0"), endpoint=hub.url)
    commit = hub.repos["tester/tiny"].branches["main"]
    assert str(caught.value).splitlines()[1] == (f"  on the Hub: main holds this release (commit {commit[:8]}); {LEFT}")


@pytest.mark.parametrize(
    ("status", "problem", "todo"),
    [
        (401, "'tester' has no right to write to tester/tiny", LOGIN),
        (403, "'tester' has no right to write to tester/tiny", LOGIN),
        (404, "HUB has no Xet storage", "set HF_HUB_DISABLE_XET=1, and run the same command again"),
    ],
)
def test_xet_refuses(
    hub: FakeHub, bundle: Path, monkeypatch: pytest.MonkeyPatch, status: int, problem: str, todo: str
) -> None:
    """Xet throws plain connection errors whatever the Hub answered: the answer is found in them."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    hub.fail("GET", "/xet-write-token/", status)
    assert failed(hub, bundle) == (
        f"staging the files failed: {problem}\n"
        f"  on the Hub: the repository is there, and main does not hold this release; {LEFT}\n"
        f"  to do: {todo}"
    )


def test_an_upload_address_is_told_without_its_signature() -> None:
    """What the client says of a failed upload may hold a presigned address: its parameters let anybody write."""
    error = ConnectionError("Network error: error sending request for url (https://cas.example.org/x?X-Sig=abc&y=1)")
    assert explain(error, "tester/tiny", "HUB", "tester").problem == (
        "the connection to HUB failed: Network error: error sending request for url (https://cas.example.org/x?…)"
    )


STATUSES = [401, 403, 404, 409, 412, 429, 500, 503]


def fail_the(hub: FakeHub, number: int, action: int | str) -> list[str]:
    """Let the `number`-th request from now fail; returns the list that the requests' paths are added to."""
    seen: list[str] = []

    def count(_: int, method: str, path: str) -> None:
        if path != "/api/agent-harnesses":  # the client's own curiosity
            seen.append(path)
            if len(seen) == number:
                hub.fail(method, "", action, times=1)

    hub.before = count
    return seen


KINDS = [
    "drop",
    "drop after",
    "status",  # one of them for each request, in turn
    *STATUSES,
]


@pytest.mark.parametrize("kind", KINDS)
def test_any_request_may_fail(hub: FakeHub, tmp_path: Path, kind: int | str) -> None:
    """Whichever request fails, in whichever way: one clear error or none, main never half, and again finishes it.

    Mutations that this finds: a stage that trusts a branch without looking at its files, a release that is opened
    before it is promoted, a clean-up that fails where the branch is gone already.
    """
    bundle = write_bundle(tmp_path / "bundle", shards=1)
    target = TARGET._replace(tag="v1.0", gated="auto", private=False)
    goal = sha256_by_path(bundle)
    total = 0
    for pushed in failing_at_each_request(hub, bundle, target, kind):
        total += 1
        repo = hub.repos["tester/tiny"]
        assert (repo.files("main"), repo.tags) == (goal, {"v1.0": pushed.commit})
        assert (repo.private, repo.gated) == (False, "auto")
        assert repo.branches.keys() == {"main"}
        # The client itself sends a file again whose arrival it never heard of.
        assert len(hub.uploaded) == 1 or kind == "drop after"
    assert total > 30


@pytest.mark.parametrize("kind", ["drop", "drop after", "status"])
def test_any_request_of_a_pull_request_may_fail(hub: FakeHub, tmp_path: Path, kind: str) -> None:
    """The same for --pr: one open pull request in the end, and main as it was."""
    bundle = write_bundle(tmp_path / "bundle", shards=1)
    goal = sha256_by_path(bundle)
    total = 0
    for pushed in failing_at_each_request(hub, bundle, TARGET._replace(pull_request=True), kind):
        total += 1
        repo = hub.repos["tester/tiny"]
        assert [(pull.num, pull.status) for pull in repo.pull_requests] == [(1, "open")]
        assert (repo.files("refs/pr/1"), repo.files("main")) == (goal, {})
        assert repo.branches["refs/pr/1"] == pushed.commit
    assert total > 15


@pytest.mark.parametrize("kind", ["drop", "drop after", "status"])
def test_any_request_may_fail_while_a_predecessor_is_told(hub: FakeHub, tmp_path: Path, kind: str) -> None:
    """The same where an older model gets new_version: it gets it, once, and keeps the rest of its card."""
    bundle = write_bundle(tmp_path / "bundle", shards=1)
    target = TARGET._replace(private=False, predecessor="tester/old")

    def prepare() -> None:
        hub.create("tester/old", files={"README.md": b"---\nlicense: mit\n---\n# Old\n"})

    total = 0
    for _ in failing_at_each_request(hub, bundle, target, kind, prepare, first=34):  # the rest is as without
        total += 1
        card = hub.read("tester/old", "README.md").decode()
        assert card == "---\nlicense: mit\nnew_version: tester/tiny\n---\n# Old\n"
        assert len(history(hub, "tester/old")) == 2
    assert total > 8


@pytest.mark.parametrize("kind", ["drop", "drop after", "status"])
def test_any_request_may_fail_with_xet(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int | str
) -> None:
    """The same where large files go to Xet's store instead of LFS."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    hub.xet = tmp_path / "xet"
    hub.xet.mkdir()
    bundle = write_bundle(tmp_path / "bundle", shards=1)
    target = TARGET._replace(tag="v1.0", private=False)
    total = 0
    for pushed in failing_at_each_request(hub, bundle, target, kind):
        total += 1
        repo = hub.repos["tester/tiny"]
        assert (repo.files("main"), repo.tags) == (sha256_by_path(bundle), {"v1.0": pushed.commit})
        assert (repo.private, hub.uploaded) == (False, [])
    assert total > 30


def failing_at_each_request(
    hub: FakeHub,
    bundle: Path,
    target: Target,
    kind: int | str,
    prepare: Callable[[], None] = lambda: None,
    *,
    first: int = 1,
) -> Iterator[Pushed]:
    """Push to an empty Hub, with the first request failing (then the second, …), and again; what that gave, each time.

    In between: one message without the token that says what the Hub holds, and main is empty or whole.
    """
    goal = sha256_by_path(bundle)
    number = total = first - 1
    while number <= total:
        number += 1
        hub.repos.clear()
        hub.objects.clear()
        hub.uploaded.clear()
        prepare()
        seen = fail_the(hub, number, STATUSES[number % len(STATUSES)] if kind == "status" else kind)
        message = ""
        try:
            push(bundle, DIGEST, target, endpoint=hub.url)
        except HubError as error:
            message = str(error)
        total = max(total, len(seen))
        hub.before = None
        hub.failures.clear()
        if message:
            assert_true(message, hub, target, goal)
        if target.repo_id in hub.repos:
            assert all(files in ({}, goal) for files in history(hub))
        yield push(bundle, DIGEST, target, endpoint=hub.url)


def assert_true(message: str, hub: FakeHub, target: Target, goal: dict[str, str]) -> None:
    """What a message says of the Hub is what the Hub holds, also where only the answer got lost."""
    assert TOKEN not in message
    _, _, told = message.partition("\n  on the Hub: ")
    repo = hub.repos.get(target.repo_id)
    if repo is None:
        assert told.startswith(("nothing was changed\n", "there is no such repository, or none that you can see\n"))
        return
    assert ("main holds this release" in told) == (repo.files("main") == goal), message
    assert (", tagged" in told) == ("v1.0" in repo.tags), message
    assert (", public" in told) == (not repo.private), message
    assert (LEFT in told) == any(name.startswith("kto-release-staging-") for name in repo.branches), message
