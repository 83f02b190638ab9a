"""A publish that is killed, at any request, and run again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from push_server import PushServer
from releases import DIGEST, TARGET, TOKEN, history, sha256_by_path, write_bundle

pytestmark = pytest.mark.slow

MOMENTS = ["before", "after"]
"""SIGKILL before or after the Hub worked on the request."""


@pytest.fixture
def goal(tmp_path: Path) -> dict[str, str]:
    """What is published: sha256 by path of tmp_path/bundle."""
    return sha256_by_path(write_bundle(tmp_path / "bundle", shards=1))


@pytest.fixture
def pusher(hub: FakeHub, tmp_path: Path, goal: dict[str, str], request: pytest.FixtureRequest) -> Iterator[PushServer]:
    """Pushes tmp_path/bundle in processes of their own; the parameter is the road that it goes."""
    road = getattr(request, "param", "lfs")
    if road == "xet":
        hub.xet = tmp_path / "xet"
        hub.xet.mkdir()
    target = TARGET._replace(pull_request=True) if road == "pr" else TARGET._replace(tag="v1.0")
    server = PushServer(tmp_path / "bundle", DIGEST, tuple(target), hub.url, TOKEN, xet=road == "xet")
    yield server
    server.close()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_request_and_finished(
    hub: FakeHub, pusher: PushServer, goal: dict[str, str], moment: str
) -> None:
    """At each request: main is empty or whole, never between; then again, and what had arrived is not sent twice.

    Mutations that this finds: uploading to main, a staging branch made without exist_ok, a tag without looking whether
    it is there.
    """
    kills = 0
    for _ in killed_at_each_request(hub, pusher, moment):
        kills += 1
        assert_finished(hub, goal)
        assert len(hub.uploaded) == 1
    assert kills > 25


@pytest.mark.parametrize("pusher", ["xet"], indirect=True)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_request_with_xet(hub: FakeHub, pusher: PushServer, goal: dict[str, str], moment: str) -> None:
    """The same where large files go to Xet's store, which holds each piece once."""
    kills = 0
    for _ in killed_at_each_request(hub, pusher, moment):
        kills += 1
        assert_finished(hub, goal)
        assert hub.uploaded == []
    assert kills > 20


@pytest.mark.parametrize("pusher", ["pr"], indirect=True)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_a_pull_request_is_made(
    hub: FakeHub, pusher: PushServer, goal: dict[str, str], moment: str
) -> None:
    """The same for --pr: there is one pull request in the end, open and whole, and main is as it was."""
    kills = 0
    for _ in killed_at_each_request(hub, pusher, moment):
        kills += 1
        repo = hub.repos["tester/tiny"]
        assert [(pull.num, pull.status) for pull in repo.pull_requests] == [(1, "open")]
        assert repo.files("refs/pr/1") == goal
        assert (repo.files("main"), len(history(hub))) == ({}, 1)
        assert len(hub.uploaded) == 1
    assert kills > 15


def killed_at_each_request(hub: FakeHub, pusher: PushServer, moment: str) -> Iterator[int]:
    """Push to an empty Hub, kill at the first request (then the second, …), look at main, push again; after each."""
    number = 0
    while True:
        number += 1
        hub.repos.clear()
        hub.objects.clear()
        hub.uploaded.clear()
        if not _kill_at(hub, pusher, number, moment):
            return
        if hub.repos:
            goal = sha256_by_path(pusher.bundle)
            assert all(files in ({}, goal) for files in history(hub))
        pusher.start()
        assert pusher.go() == "done"
        yield number


def assert_finished(hub: FakeHub, goal: dict[str, str]) -> None:
    repo = hub.repos["tester/tiny"]
    assert repo.files("main") == goal
    assert repo.tags == {"v1.0": repo.branches["main"]}
    assert repo.branches.keys() == {"main"}
    assert len(history(hub)) == 2


def _kill_at(hub: FakeHub, pusher: PushServer, number: int, moment: str) -> bool:
    """Push and kill at the `number`-th request; False where the push was done before."""
    process = pusher.start()
    count = 0

    def at(_: int, method: str, path: str) -> None:
        nonlocal count
        count += path != "/api/agent-harnesses"
        if count == number:
            action = "drop" if moment == "before" else "drop after"
            hub.fail(method, "", action, times=1, call=lambda: os.kill(process, signal.SIGKILL))
            hub.before = None

    hub.before = at
    answer = pusher.go()
    hub.before = None
    assert answer in ("killed", "done")
    return answer == "killed"
