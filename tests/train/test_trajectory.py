"""A committed trajectory guards the training loop: a change that should not move numbers does not.

`make trajectory` records it anew, from a clean working tree only, so that the commit says which code gave it.
"""

import json
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from feedback_files import write_recipe
from tiny import make_tiny_model

from kto_release.files import read_jsonl
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train

pytestmark = pytest.mark.slow

PATH = Path(__file__).with_name("trajectory.json")
TOLERANCES = {"loss": 1e-5, "kl/raw": 2e-4, "grad_norm": 1e-5}
"""Absolute, but for grad_norm, where it is relative. At least ten times what one machine differed by from itself held to
AVX2 (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS): 2e-7, 1.1e-5 nats and 2e-7."""


def trajectory(folder: Path) -> list[list[dict[str, float]]]:
    """Loss, raw KL and gradient norm of every step of two iterations of a tiny run, in fp32 on one thread."""
    import torch

    torch.set_num_threads(1)
    model = make_tiny_model(folder / "model")
    run = Run.open(load_recipe(write_recipe(folder, model, **{"train.probe_prompts": 0})), folder / "runs")
    train(run)
    return [
        [{name: row[name] for name in TOLERANCES} for row in read_jsonl(run.iteration(number) / "metrics.jsonl")]
        for number in (1, 2)
    ]


def record(folder: Path) -> None:
    """Write trajectory.json; refused where the working tree differs from its commit."""
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=PATH.parent, capture_output=True, text=True, check=True
    ).stdout
    if changed.strip():
        raise SystemExit(f"commit or stash these first, so that the trajectory is that of a commit:\n{changed}")
    PATH.write_text(json.dumps(trajectory(folder), indent=1) + "\n", encoding="utf-8")


def test_the_training_loop_gives_the_recorded_trajectory(tmp_path: Path) -> None:
    """Every step's loss, raw KL and gradient norm are those that were recorded, to a stated tolerance."""
    expected: list[list[dict[str, Any]]] = json.loads(PATH.read_text(encoding="utf-8"))
    found = trajectory(tmp_path)
    assert [len(steps) for steps in found] == [len(steps) for steps in expected]
    for mine, theirs in zip(chain(*found), chain(*expected), strict=True):
        for name in ("loss", "kl/raw"):
            assert mine[name] == pytest.approx(theirs[name], abs=TOLERANCES[name]), name
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=TOLERANCES["grad_norm"])
