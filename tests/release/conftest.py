"""A Hub on loopback, and something to publish."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from releases import TOKEN, write_bundle


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub where this process is `tester`; uploads go through LFS, and the client does not wait between tries."""
    import huggingface_hub

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    huggingface_hub.utils.disable_progress_bars()
    with FakeHub({TOKEN: "tester", "hf_other": "other"}) as server:
        yield server


@pytest.fixture
def own_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The same Hub as this process's own, as HF_ENDPOINT would make it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    return hub


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")
