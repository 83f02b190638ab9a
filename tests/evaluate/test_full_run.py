"""All 805 instructions through the command line, killed again and again: the score of an unbroken run, paid once."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, judge_server

from kto_release.evaluate.scoring.leaderboard import leaderboard
from kto_release.judges.official import OFFICIAL_JUDGE
from kto_release.judges.rows import read_rows

pytestmark = pytest.mark.slow

MODEL = "claude-2.1"
CONCURRENCY = 8
KILLS = 6
NOT_SCORES = ("finished", "environment", "judge", "score", "inputs_sha256")


class Prepared:
    """A recipe, the recorded answers as a file of outputs, and the judge's replayed preferences."""

    def __init__(self, folder: Path, data: Path) -> None:
        rows = read_rows(data / "annotations" / f"{MODEL}.json.xz").rows
        self.questions = sum(row.reference != row.output for row in rows)
        # A prompt is stripped, so an answer's own outer whitespace may be gone.
        self.preferences = {(row.instruction, row.output.strip()): row.preference for row in rows}
        self.outputs, self.gamed = folder / "outputs.json", data / "hub" / "df_gamed.csv"
        made = [{"instruction": row.instruction, "output": row.output, "generator": MODEL} for row in rows]
        self.outputs.write_text(json.dumps(made))
        self.recipe, self.folder = folder / "recipe.yaml", folder
        self.reference = data / "outputs" / "gpt4_1106_preview.json.xz"

    def prefer(self, instruction: str, first: str, second: str) -> float:
        """The recorded probability that the first answer is better."""
        wins = self.preferences.get((instruction, second.strip()))
        if wins is not None:
            return 2 - wins
        wins = self.preferences.get((instruction, first.strip()))
        return 0.9 if wins is None else wins - 1  # the probe is about nobody's answer

    def command(self, cli: Path, server: JudgeServer, runs: str) -> list[str]:
        judge = {
            "kind": "openai",
            "model": "replay",
            "base_url": server.url,
            "concurrency": CONCURRENCY,
            "verdict": "logprobs",
        }
        plain = {
            "name": "full",
            "model": {"base": "none"},
            "data": {"source": "none.jsonl", "partitions": 1},
            "eval": {"prompts": str(self.reference), "reference": str(self.reference), "judge": judge},
        }
        self.recipe.write_text(json.dumps(plain))  # JSON is YAML
        return [
            *map(str, [cli, "eval", self.recipe, "--runs", self.folder / runs, "--outputs", self.outputs]),
            *map(str, ["--lc-data", self.gamed]),
        ]

    def results(self, runs: str) -> dict[str, Any]:
        """The record, but for what two runs may differ in."""
        [path] = (self.folder / runs).glob("full/eval/*/*/*/results.json")
        record: dict[str, Any] = json.loads(path.read_text())
        return {key: value for key, value in record.items() if key not in NOT_SCORES}

    def journal(self, runs: str) -> list[bytes]:
        paths = list((self.folder / runs).glob("full/eval/*/*/*/judgements.jsonl"))
        return paths[0].read_bytes().splitlines() if paths else []


def test_a_run_that_is_killed_again_and_again(cli: Path, shared_data: Path, tmp_path: Path) -> None:
    """SIGKILL at six random points of the judging: each judgement on disk is kept and never paid again."""
    prepared = Prepared(tmp_path, shared_data / "alpaca_eval")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with judge_server(prepared.prefer, delay=0.01) as server:
        command = prepared.command(cli, server, "whole")
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole = prepared.results("whole")
        assert len(server.asked) == prepared.questions + 1  # one probe

        server.asked.clear()
        command, kills = prepared.command(cli, server, "broken"), 0
        points = sorted(random.Random(0).sample(range(20, prepared.questions - 20), KILLS))
        for point in points:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and len(server.asked) < point:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            time.sleep(0.1)  # the server finishes what is in flight
        assert kills == KILLS
        kept = len(prepared.journal("broken"))
        assert 0 < kept < prepared.questions
        last = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)

    asked = Counter(one.instruction for one in server.asked)
    probes = asked.pop("What is 1 + 1?")
    assert probes == KILLS + 1
    assert len(asked) == prepared.questions
    again = sum(asked.values()) - prepared.questions
    assert again <= KILLS * CONCURRENCY
    keys = [json.loads(line)["key"] for line in prepared.journal("broken")]
    assert len(keys) == len(set(keys)) == prepared.questions

    broken = prepared.results("broken")
    assert broken == whole
    official = leaderboard()[MODEL]
    assert broken["win_rate"] == pytest.approx(official.win_rate, abs=1e-9)
    assert broken["standard_error"] == pytest.approx(official.standard_error, abs=1e-9)
    assert broken["length_controlled_winrate"] == pytest.approx(official.length_controlled_winrate, abs=0.2)
    # The judge is called what it is, so the official leaderboard stays away.
    assert OFFICIAL_JUDGE not in last.stdout
    assert "official leaderboard" not in last.stdout
