"""No process of vLLM's outlives us, however we end; a small package stands for vLLM, as busy and as deaf."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

VLLM = """
import os, pathlib, subprocess, sys, time


class SamplingParams:
    def __init__(self, **settings): ...


class Engine:
    def add_request(self, *request): ...
    def has_unfinished_requests(self): return True

    def step(self):
        # A worker of its own, as for tensor parallelism; then busy, listening to nobody.
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        told = pathlib.Path(os.environ["TOLD"])
        told.with_suffix(".part").write_text(f"{os.getpid()} {worker.pid}")
        told.with_suffix(".part").rename(told)
        time.sleep(300)


class LLM:
    def __init__(self, **options): self.llm_engine = Engine()
"""
MODULES = {
    "__init__": VLLM,
    "platforms": "class current_platform:\n    is_cpu = staticmethod(lambda: True)\n",
    "sampling_params": "class RequestOutputKind:\n    FINAL_ONLY = 2\n",
    "inputs": "class TokensPrompt(dict): ...\n",
}
PARENT = """
import sys
from pathlib import Path
from kto_release.engines import Model, Request, Sampling
from kto_release.engines.vllm import VllmEngine
from kto_release.recipe import EngineSection

if __name__ == "__main__":
    section = EngineSection(kind="vllm", tensor_parallel_size=2)
    engine = VllmEngine(Model(Path("model"), "bfloat16"), section, longest=64, log=Path("vllm.log"))
    list(engine.generate([Request([1, 2], 0)], Sampling(1.0, 1.0, None, 8, ())))
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is only waiting to be counted as dead does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def heed_interrupts() -> None:
    """Tests may run in the background, where a shell has interrupts ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_engine_outlives_us(tmp_path: Path, end: signal.Signals) -> None:
    """Killed, terminated or interrupted while it generates: the replica and what that started are gone."""
    package = tmp_path / "vllm"
    package.mkdir()
    for name, text in MODULES.items():
        (package / f"{name}.py").write_text(text)
    installed = tmp_path / "vllm-0.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.0\n")
    (tmp_path / "parent.py").write_text(PARENT)
    told = tmp_path / "told"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "TOLD": str(told)}
    parent = subprocess.Popen(
        [sys.executable, "parent.py"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no thread of ours runs here
    )
    pids: list[int] = []
    try:
        deadline = time.monotonic() + 120
        while not told.exists() and parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        pids = [int(pid) for pid in told.read_text().split()]
        assert [is_alive(pid) for pid in pids] == [True, True]
        parent.send_signal(end)
        parent.wait(timeout=60)
        deadline = time.monotonic() + 20
        while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [is_alive(pid) for pid in pids] == [False, False]
    finally:
        parent.kill()
        parent.wait()
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)
