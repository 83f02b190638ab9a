"""What every test shares: no network but loopback, a temporary home, a clean environment, and small real models."""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports a library that reads these at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: more threads only wait for each other
REAL_CACHE = (
    os.environ.get("REAL_CACHE")  # of the process that started this one: its home is temporary already
    or os.environ.get("KTO_RELEASE_CACHE")
    or str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kto-release")
)
_HOME = tempfile.TemporaryDirectory(prefix="kto-release-tests-")
CANARY = "hf_canaryTokenThatMustAppearNowhere0000"
for name in [
    n for n in os.environ if n.startswith(("HF_", "OPENAI_", "HUGGING_FACE", "WANDB", "KTO_RELEASE", "VLLM_"))
]:
    del os.environ[name]
os.environ.update(
    REAL_CACHE=REAL_CACHE,
    HOME=_HOME.name,
    XDG_CACHE_HOME=f"{_HOME.name}/.cache",
    HF_HOME=f"{_HOME.name}/hf",
    HF_ENDPOINT="http://127.0.0.1:9",  # nothing listens there: an accidental request fails at once
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    USER="tester",
    COLUMNS="120",
)

import pytest  # noqa: E402

if TYPE_CHECKING:
    from fake_hub import FakeHub


def pytest_configure() -> None:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "localhost", "::1")):
            raise OSError(f"tests may not connect to {address[0]}")
        return connect(self, address)  # type: ignore[arg-type]

    socket.socket.connect = guarded  # type: ignore[method-assign, assignment]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama in bfloat16 with a small tokenizer and chat template."""
    from tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of the real SmolLM2-135M-Instruct, as `kto-release demo --prepare` keeps it."""
    folder = Path(REAL_CACHE) / "models" / "HuggingFaceTB--SmolLM2-135M-Instruct"
    if not (folder / "config.json").is_file():
        pytest.skip("SmolLM2-135M-Instruct is not prepared: run `kto-release demo --prepare`")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the acceptance data, which is not part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the acceptance data (../shared/data) is absent")
    return folder


@pytest.fixture
def cli() -> Path:
    """Path of the installed `kto-release`."""
    path = Path(sys.executable).parent / "kto-release"
    if not path.exists():
        pytest.skip("kto-release is not installed as a command beside this Python")
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator["FakeHub"]:
    """A Hub where this process is `tester`; uploads go through LFS, and the client does not wait between tries."""
    # They read the environment when they are imported, and this file sets it.
    import huggingface_hub
    from fake_hub import FakeHub
    from releases import TOKEN

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    huggingface_hub.utils.disable_progress_bars()
    with FakeHub({TOKEN: "tester", "hf_other": "other"}) as server:
        yield server


@pytest.fixture
def own_hub(hub: "FakeHub", monkeypatch: pytest.MonkeyPatch) -> "FakeHub":
    """The same Hub as this process's own, as HF_ENDPOINT would make it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    return hub
