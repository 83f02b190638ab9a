"""Replicas of the vLLM engine; a small package stands for vLLM, and writes down what each replica was given."""

import json
from pathlib import Path

import pytest

from kto_release.engines import Completion, Model, Request, Sampling
from kto_release.engines.vllm import MAX_LOGPROBS, VllmEngine
from kto_release.recipe import EngineSection

VLLM = """
import json, os, pathlib
from types import SimpleNamespace


class SamplingParams:
    def __init__(self, **settings): ...


class Engine:
    def __init__(self, options):
        self.queue, self.given = [], []
        self.options, self.devices = options, os.environ["CUDA_VISIBLE_DEVICES"]

    def add_request(self, name, prompt, parameters):
        self.queue.append((name, prompt["prompt_token_ids"]))
        self.given.append(prompt["prompt_token_ids"][0])

    def has_unfinished_requests(self): return bool(self.queue)

    def step(self):
        name, ids = self.queue.pop()  # the last first: answers need not come in order
        told = {"options": self.options, "given": self.given}
        (pathlib.Path(os.environ["TOLD"]) / self.devices).write_text(json.dumps(told))
        answer = SimpleNamespace(token_ids=[ids[0] + 100], finish_reason="stop")
        return [SimpleNamespace(request_id=name, finished=True, outputs=[answer])]


class LLM:
    def __init__(self, **options): self.llm_engine = Engine(options)
"""
MODULES = {
    "__init__": VLLM,
    "platforms": """
class current_platform:
    is_cpu = staticmethod(lambda: False)
    get_device_name = staticmethod(lambda: "NVIDIA H100")
""",
    "sampling_params": "class RequestOutputKind:\n    FINAL_ONLY = 2\n",
    "inputs": "class TokensPrompt(dict): ...\n",
}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder where each replica writes what it was given, in a file that is named by its devices."""
    (tmp_path / "vllm").mkdir()
    for name, text in MODULES.items():
        (tmp_path / "vllm" / f"{name}.py").write_text(text)
    (tmp_path / "vllm-0.0.dist-info").mkdir()
    (tmp_path / "vllm-0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "told"
    folder.mkdir()
    monkeypatch.setenv("TOLD", str(folder))
    return folder


def test_each_replica_has_its_devices_and_its_share(
    told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replicas of two devices each: of devices 4 to 7 each takes a pair, and of five requests every second one.

    vLLM itself is told of the devices of one replica only, and that the model's own code may run, as the recipe says.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    section = EngineSection(kind="vllm", tensor_parallel_size=2, data_parallel_size=2)
    model = Model(tmp_path / "model", "bfloat16", trust_remote_code=True)
    engine = VllmEngine(model, section, longest=64, log=tmp_path / "vllm.log")
    try:
        found = dict(engine.generate([Request([first, 1], 0) for first in range(10, 15)], Sampling(0, 1, None, 8, ())))
    finally:
        engine.close()
    assert found == {index: Completion([110 + index], "stop") for index in range(5)}
    assert (engine.version, engine.hardware) == ("0.0", "4 x NVIDIA H100")
    records = {path.name: json.loads(path.read_text()) for path in told.iterdir()}
    assert {devices: record["given"] for devices, record in records.items()} == {
        "4,5": [10, 12, 14],
        "6,7": [11, 13],
    }
    expected = {
        "model": str(tmp_path / "model"),
        "dtype": "bfloat16",
        "trust_remote_code": True,
        "max_model_len": 64,
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "gpu_memory_utilization": section.gpu_memory_utilization,
        "max_logprobs": MAX_LOGPROBS,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
    }
    assert [record["options"] for record in records.values()] == [expected, expected]


def test_more_replicas_than_requests(told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second replica has nothing to do, and is not waited for; a model's own code is not run unasked."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    section = EngineSection(kind="vllm", data_parallel_size=2)
    engine = VllmEngine(Model(tmp_path / "model", "float32"), section, longest=64, log=tmp_path / "vllm.log")
    try:
        found = list(engine.generate([Request([10, 1], 0)], Sampling(0, 1, None, 8, ())))
    finally:
        engine.close()
    assert found == [(0, Completion([110], "stop"))]
    assert [path.name for path in told.iterdir()] == ["0"]
    assert json.loads((told / "0").read_text())["options"]["trust_remote_code"] is False
