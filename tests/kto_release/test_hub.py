"""What a reader is told when the Hub says no, or nothing: the real client against servers on loopback."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub

from kto_release.errors import HubError, ModelError
from kto_release.evaluate.instructions import fetch
from kto_release.feedback.hub_data import hub_facts
from kto_release.models import locate
from kto_release.recipe import DataSection
from kto_release.release.facts import hub_license
from kto_release.release.verify import download

OUT = "; or give model.base a local folder"
AGAIN = "run the same command again: what has arrived is not fetched twice"


def point_to(monkeypatch: pytest.MonkeyPatch, cache: Path, endpoint: str) -> None:
    """Let the client ask this server, wait 0.2 s at most and not between two tries, and find nothing in its cache."""
    import httpx2
    from huggingface_hub import constants, set_client_factory

    def shorten(request: httpx2.Request) -> None:
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), 0.2)

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("time.sleep", lambda _: None)
    set_client_factory(lambda: httpx2.Client(event_hooks={"request": [shorten]}))


@pytest.fixture(autouse=True)
def own_client() -> Iterator[None]:
    """The client as it was, afterwards."""
    yield
    from huggingface_hub import close_session, set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    set_client_factory(default_client_factory)
    close_session()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub(users={}) as hub:
        hub.create("org/base", files={"config.json": b"{}", "README.md": b"---\nlicense: mit\n---\n"})
        point_to(monkeypatch, tmp_path / "cache", hub.url)
        yield hub


@pytest.fixture(params=["resets", "never answers"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server that takes connections, and closes each at once or says nothing; how it is spoken of."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            if request.param == "resets":
                connection.close()
            else:
                held.append(connection)

    threading.Thread(target=serve, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    point_to(monkeypatch, tmp_path / "cache", endpoint)
    yield (
        f"{endpoint} did not answer in time"
        if request.param == "never answers"
        else f"the connection to {endpoint} failed: "
    )
    server.close()
    for connection in held:
        connection.close()


def refused_model(base: str, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        locate(base, revision)
    return str(caught.value)


def test_an_unknown_model(hub: FakeHub) -> None:
    """A name that the Hub does not know, or hides."""
    assert refused_model("org/nothing") == (
        "the Hub knows no model 'org/nothing', or keeps it private\n"
        "  expected: an existing folder, or a Hub id such as org/name\n"
        "  to do: mend the name, or `hf auth login` for a private model"
    )


def test_a_wrong_revision(hub: FakeHub) -> None:
    """A model that is there, without that branch, tag or commit."""
    assert refused_model("org/base", "v9").startswith("'org/base' has no revision 'v9'\n")


def test_a_gated_model(hub: FakeHub) -> None:
    """The terms of a gated model have to be accepted by a person."""
    hub.fail("GET", "/api/models/", 403, headers={"X-Error-Code": "GatedRepo"})
    message = refused_model("org/base")
    assert message.startswith("'org/base' is gated, and you have no access\n")
    assert message.endswith("\n  to do: accept its terms on the Hub, then `hf auth login`")


def test_a_model_from_a_hub_that_does_not_answer(broken: str) -> None:
    """A connection that breaks or stays silent is one clear error."""
    message = refused_model("org/base")
    assert message.startswith(f"'org/base' is no folder here and not in the cache: {broken}")
    assert message.endswith(f"\n  to do: {AGAIN}{OUT}")


def test_instructions_from_a_hub_that_does_not_answer(broken: str) -> None:
    """AlpacaEval's file likewise."""
    with pytest.raises(HubError) as caught:
        fetch("df_gamed.csv")
    start = f"tatsu-lab/alpaca_eval/df_gamed.csv is not in the Hub's cache, and {broken}"
    assert caught.value.problem.startswith(start)


def test_a_release_from_a_hub_that_does_not_answer(broken: str) -> None:
    """What is to be verified likewise."""
    with pytest.raises(HubError) as caught:
        download("org/base", None)
    assert caught.value.problem.startswith(f"'org/base' is no folder here, and can't be had from the Hub: {broken}")


def test_a_licence_and_a_commit_from_a_hub_that_does_not_answer(broken: str) -> None:
    """What only adds to a record is not known then: the cache may still hold the rows of a data set."""
    assert hub_license("org/base", None) is None
    assert hub_facts(DataSection(source="org/feedback", partitions=1)) == (None, {"org/feedback": None})
