"""A judge that fails for good, as the user of the command line meets it: one message, what is on disk, the same score."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import Result, run_command
from judge_server import Fault, JudgeServer, error, judge_server

from kto_release.files import read_jsonl

ROWS = [{"instruction": f"Say {number}.", "output": "a longer answer" if number % 2 else "no"} for number in range(8)]
GOOD = 3
"""The probe and two questions are answered before the fault begins."""

FAULTS: dict[str, tuple[Fault, str]] = {
    "429": (error(429, "Slow down"), "stopped: HTTP 429: Slow down, 2 times, for several questions"),
    "429 with Retry-After": (
        error(429, "Slow down", retry_after="0.1"),
        "stopped: HTTP 429: Slow down, 2 times, for several questions",
    ),
    "500": (error(500, "Oops"), "stopped: HTTP 500: Oops, 2 times, for several questions"),
    "401": (error(401, "Bad key"), "stopped: HTTP 401: Bad key"),
    "404": (error(404, "No such model"), "stopped: HTTP 404: No such model"),
    "hang": (Fault(hang=1.2), "stopped: no answer in time (eval.judge.timeout), 2 times, for several questions"),
    "reset": (Fault(reset=True), "stopped: no connection: "),
    "half a body": (Fault(half=True), "stopped: no connection: "),
    "HTML": (Fault(body=b"<html>log in</html>"), "6 x the answer is no JSON: '<html>log in</html>'"),
    "empty choices": (Fault(change=lambda c: c.update(choices=[])), "6 x the answer holds no choice"),
    "missing log-probabilities": (
        Fault(change=lambda c: c["choices"][0].update(logprobs=None)),
        "6 x the answer holds no log-probabilities",
    ),
    "foreign tokens": (
        Fault(
            change=lambda c: c["choices"][0]["logprobs"]["content"][0].update(
                top_logprobs=[{"token": "Sure", "logprob": -0.1}]
            )
        ),
        "6 x no answer letter among the likeliest tokens: 'Sure'",
    ),
}


class Setting:
    """A recipe with the judge, stored answers, and the command."""

    def __init__(self, folder: Path, server: JudgeServer) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in (("reference", "short"), ("outputs", None)):
            rows = [{**row, "output": text or row["output"], "generator": name} for row in ROWS]
            (folder / f"{name}.json").write_text(json.dumps(rows))
        judge = {
            "kind": "openai",
            "model": "gpt-x",
            "base_url": server.url,
            "timeout": 0.6,
            "max_retries": 1,
            "verdict": "logprobs",
        }
        reference = str(folder / "reference.json")
        plain = {
            "name": "faulty",
            "model": {"base": "none"},
            "data": {"source": "none.jsonl", "partitions": 1},
            "eval": {"prompts": reference, "reference": reference, "judge": {**judge, "concurrency": 1}},
        }
        (folder / "recipe.yaml").write_text(json.dumps(plain))

    def evaluate(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Result:
        words = ["eval", self.folder / "recipe.yaml", "--outputs", self.folder / "outputs.json", "--runs", self.folder]
        return run_command(monkeypatch, capfd, *words)

    def found(self, name: str) -> list[Path]:
        return list(self.folder.glob(f"faulty/eval/*/*/*/{name}"))

    def scores(self) -> dict[str, Any]:
        [path] = self.found("results.json")
        record: dict[str, Any] = json.loads(path.read_text())
        return {key: record[key] for key in ("win_rate", "standard_error", "n_total", "n_failed", "intervals")}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS)
def test_a_judge_that_fails_for_good(
    fault: Fault, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 and the reason; two judgements on disk and no score; later only the others are asked, for the same score."""
    with judge_server() as server:
        whole = Setting(tmp_path / "whole", server)
        assert whole.evaluate(monkeypatch, capfd).code == 0

        broken = Setting(tmp_path / "broken", server)
        server.faults.extend([Fault()] * GOOD)
        server.always = fault
        result = broken.evaluate(monkeypatch, capfd)
        assert result.code == 1
        message = result.err[result.err.index("error: ") :]
        assert said in message
        assert "Traceback" not in result.err
        assert broken.found("results.json") == broken.found("annotations.json") == []
        [journal] = broken.found("judgements.jsonl")
        assert len(read_jsonl(journal)) == GOOD - 1

        server.faults.clear()
        server.always, before = None, server.requests
        assert broken.evaluate(monkeypatch, capfd).code == 0
        assert server.requests == before + 1 + len(ROWS) - (GOOD - 1)
    assert broken.scores() == whole.scores()
    assert not broken.found("failures.jsonl")
