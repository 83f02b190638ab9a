"""One process against two, through the command line and gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from feedback_files import write_recipe

from kto_release.run import read_jsonl


def metrics(folder):
    return [read_jsonl(folder / "runs" / "small" / f"iteration-{n}" / "metrics.jsonl") for n in (1, 2)]


def call(command, folder):
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_two_processes_train_what_one_trains(cli, tmp_path, tiny_model):
    """Losses and gradient norms of all steps agree to 1e-5, and the run says that there were two.

    Fails if gradients are averaged without scaling the loss by the number of processes, or if z is a rank's own.
    """
    torchrun = Path(sys.executable).parent / "torchrun"
    if not torchrun.exists():
        pytest.skip("torchrun is not installed beside this Python")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write_recipe(folder, tiny_model)
    call([cli, "train", "recipe.yaml"], one)
    out = call([torchrun, "--nproc_per_node", "2", "--no-python", cli, "train", "recipe.yaml"], two)
    assert "2 processes, MULTI_CPU" in out
    for mine, theirs in zip(metrics(one), metrics(two), strict=True):
        assert len(mine) == len(theirs) == 3
        for left, right in zip(mine, theirs, strict=True):
            assert left["loss"] == pytest.approx(right["loss"], abs=1e-5)
            assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-5, abs=1e-5)
            assert left["kl/raw"] == pytest.approx(right["kl/raw"], abs=1e-4)
