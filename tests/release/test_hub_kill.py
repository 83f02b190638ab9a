"""A publish that is killed, at any request, and run again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from push_server import PushServer
from releases import DIGEST, TARGET, TOKEN, history, sha256_by_path, write_bundle


@pytest.fixture
def pusher(hub: FakeHub, tmp_path: Path) -> Iterator[PushServer]:
    """Pushes tmp_path/bundle in processes of their own."""
    bundle = write_bundle(tmp_path / "bundle", shards=1)
    server = PushServer(bundle, DIGEST, tuple(TARGET._replace(tag="v1.0")), hub.url, TOKEN)
    yield server
    server.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_request_and_finished(hub: FakeHub, pusher: PushServer, tmp_path: Path, moment: str) -> None:
    """SIGKILL before or after the Hub worked on each request: main is empty or whole, never between; then again.

    What had arrived is not sent a second time. Mutations that this finds: uploading to main, a staging branch made
    without exist_ok, a tag without looking whether it is there.
    """
    goal = sha256_by_path(tmp_path / "bundle")
    kills, number, finished = 0, 0, False
    while not finished:
        number += 1
        hub.repos.clear()
        hub.objects.clear()
        hub.uploaded.clear()
        finished = not _kill_at(hub, pusher, number, moment)
        kills += not finished
        if hub.repos:
            assert all(files in ({}, goal) for files in history(hub))
        pusher.start()
        assert pusher.go() == "done"
        repo = hub.repos["tester/tiny"]
        assert repo.files("main") == goal
        assert repo.tags == {"v1.0": repo.branches["main"]}
        assert repo.branches.keys() == {"main"}
        assert len(history(hub)) == 2
        assert len(hub.uploaded) == 1
    assert kills > 25


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
