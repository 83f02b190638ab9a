"""What one process does alone does not end the others, however long it takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from feedback_files import write_recipe

pytestmark = pytest.mark.slow

HERE = Path(sys.executable).parent
SLOW_MAIN = Path(__file__).parents[1] / "support" / "slow_main.py"


def two(folder, *command):
    """What two processes of a command did in a folder."""
    if not (HERE / "torchrun").exists():
        pytest.skip("torchrun is not installed beside this Python")
    return subprocess.run(
        [HERE / "torchrun", "--nproc_per_node", "2", "--no-python", *command],
        cwd=folder,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_slow_main_process_ends_no_other(tmp_path, tiny_model):
    """In every phase the main process takes longer than a collective waits, and the training is whole.

    Fails if any phase has the others wait inside a collective of the training's own group.
    """
    changes = {"train.checkpoint_every": 1, "train.reference": "initial", "data.partitions": ["one", "two"]}
    write_recipe(tmp_path, tiny_model, **changes)
    result = two(tmp_path, sys.executable, SLOW_MAIN)
    assert result.returncode == 0, result.stderr[-3000:]
    phases = "tokenize_each _check_parent load_model prove load file_sha256 check_trained _finish"
    assert f"slow: {phases}\n" in result.stdout
    assert (tmp_path / "runs" / "small" / "iteration-2" / "record.json").is_file()


def test_where_the_main_process_stops_the_others_stop(tmp_path, tiny_model):
    """One sentence of its own from the main process; the other one says where to look, without a traceback."""
    write_recipe(tmp_path, tiny_model, **{"data.partitions": ["one", "gone"]})
    result = two(tmp_path, HERE / "kto-release", "train", "recipe.yaml")
    assert result.returncode == 1
    assert "gone" in result.stderr
    assert "kto_release/" not in result.stderr
