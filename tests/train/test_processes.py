"""One process against two, by data parallelism and by FSDP2, through gloo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from feedback_files import write_recipe
from numpy.testing import assert_allclose
from safetensors.torch import load_file
from torch.testing import assert_close

from kto_release.files import read_jsonl

pytestmark = pytest.mark.slow

TORCHRUN = Path(sys.executable).parent / "torchrun"
FSDP2 = [sys.executable, str(Path(__file__).parents[1] / "support" / "fsdp_on_cpu.py")]


def metrics(folder):
    return [read_jsonl(folder / "runs" / "small" / f"iteration-{n}" / "metrics.jsonl") for n in (1, 2)]


def weights(folder):
    return [load_file(folder / "runs" / "small" / f"iteration-{n}" / "model" / "model.safetensors") for n in (1, 2)]


def environment(**more):
    return {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **more}


def call(command, folder, **more):
    result = subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False, timeout=500
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def two(*command):
    if not TORCHRUN.exists():
        pytest.skip("torchrun is not installed beside this Python")
    return [TORCHRUN, "--nproc_per_node", "2", "--no-python", *command]


@pytest.fixture(scope="module")
def one(tmp_path_factory, tiny_model):
    """What one process trains."""
    folder = tmp_path_factory.mktemp("one")
    write_recipe(folder, tiny_model)
    call([Path(sys.executable).parent / "kto-release", "train", "recipe.yaml"], folder)
    return folder


def check_equal(mine, theirs, weight=2e-5):
    """Losses and gradient norms of all steps agree to 1e-5, and the weights of both iterations to `weight`.

    A step moves a weight by up to 1e-3; AdamW magnifies the rounding of gradients that are almost 0.
    """
    for left, right in zip(metrics(mine), metrics(theirs), strict=True):
        assert len(left) == len(right) == 3
        for a, b in zip(left, right, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5, abs=1e-5)
            assert a["kl/raw"] == pytest.approx(b["kl/raw"], abs=1e-4)
    for left, right in zip(weights(mine), weights(theirs), strict=True):
        assert_close(left, right, rtol=0, atol=weight)


def check_probes(mine, theirs):
    """Held-out feedback is shared between processes, and each completion counted once: one set of log-probabilities for
    each model, the same to the weights' differences."""
    found = []
    for folder in (mine, theirs):
        paths = (folder / "runs" / "small" / "held-out" / "logps").glob("*.npz")
        found.append(sorted(np.load(path)["logps_K"].tolist() for path in paths))
    assert len(found[0]) == 3
    assert_allclose(found[0], found[1], rtol=0, atol=0.01)


def test_two_processes_train_what_one_trains(one, tmp_path, tiny_model):
    """By data parallelism. Fails if gradients are averaged without scaling the loss by the number of processes, or if z
    is a rank's own."""
    write_recipe(tmp_path, tiny_model)
    out = call(two(Path(sys.executable).parent / "kto-release", "train", "recipe.yaml"), tmp_path)
    assert "2 processes, MULTI_CPU" in out
    check_equal(one, tmp_path)
    check_probes(one, tmp_path)


def test_fsdp2_trains_what_one_process_trains(one, tmp_path, tiny_model):
    """Weights, gradients and optimizer state in shards, gathered at the hand-over. Fails if a rank saves its shard, if
    the head is used outside the model's forward, or if the ranks have different numbers of packs."""
    write_recipe(tmp_path, tiny_model)
    out = call(two(*FSDP2), tmp_path)
    assert "2 processes, FSDP2" in out
    check_equal(one, tmp_path)


def test_fsdp2_goes_on_from_its_checkpoint(one, tmp_path, tiny_model):
    """Both processes killed after the first checkpoint, and started again: what one process trains without a pause.

    Fails if the shards of the optimizer's state are not saved or not loaded.
    """
    write_recipe(tmp_path, tiny_model, **{"train.checkpoint_every": 1})
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            two(*FSDP2), cwd=tmp_path, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    seal = tmp_path / "runs" / "small" / "iteration-1" / "checkpoints" / "checkpoint-1" / "complete.json"
    deadline = time.monotonic() + 300
    while not seal.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    assert seal.exists(), (tmp_path / "log").read_text()
    assert not (tmp_path / "runs" / "small" / "iteration-1" / "model").exists()
    call(two(*FSDP2), tmp_path)
    check_equal(one, tmp_path)


@pytest.mark.parametrize(("lora", "main_only"), [(None, "true"), ({"rank": 4}, "false")])
def test_fsdp2_as_accelerate_configures_it(tmp_path, tiny_model, lora, main_only):
    """Sharded state dicts, checkpointed layers, packs that need other numbers of head chunks on each rank, the initial
    model as the reference, and weights loaded on the main process only or on all: what one process trains.

    Fails (or waits for ever) if the head is called once per chunk, if the second iteration's reference is what a rank
    without weights loaded, or if the model is saved as the checkpoints are.
    """
    changes = {
        "train.tokens_per_pack": 64,
        "train.gradient_checkpointing": True,
        "train.reference": "initial",
        "train.lora": lora,
    }
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_recipe(tmp_path / name, tiny_model, **changes)
    call([Path(sys.executable).parent / "kto-release", "train", "recipe.yaml"], tmp_path / "one")
    call(
        two(*FSDP2),
        tmp_path / "two",
        LOGITS_AT_ONCE="4000",
        FSDP_STATE_DICT_TYPE="SHARDED_STATE_DICT",
        FSDP_CPU_RAM_EFFICIENT_LOADING=main_only,
    )
    check_equal(tmp_path / "one", tmp_path / "two", weight=1e-4)


def test_fsdp2_in_bf16_rounds_no_log_probability(tmp_path, tiny_model):
    """bf16 is for the arithmetic inside: an answer's log-probability is fp32, so their mean is near one process's.

    Fails if what forward returns is rounded, to quarters of a nat here.
    """
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_recipe(tmp_path / name, tiny_model, **{"train.precision": "bf16", "data.partitions": ["one"]})
    call([Path(sys.executable).parent / "kto-release", "train", "recipe.yaml"], tmp_path / "one")
    call(two(*FSDP2), tmp_path / "two")
    (mine, theirs) = (
        read_jsonl(tmp_path / name / "runs" / "small" / "iteration-1" / "metrics.jsonl") for name in ("one", "two")
    )
    assert mine[0]["logps/chosen"] == pytest.approx(theirs[0]["logps/chosen"], rel=0.005)
    assert any((row["logps/chosen"] * 64) % 1 for row in theirs)


@pytest.mark.slow
def test_ranks_without_a_common_run_directory_stop(tmp_path, tiny_model):
    """Two machines whose folders are not the same: one sentence on both, and nothing was made."""
    write_recipe(tmp_path, tiny_model)
    program = (
        "import os, sys; import kto_release.train.distributed as d; d.SEEN_AFTER = 1.0; from kto_release.cli import main; "
        "sys.argv = ['kto-release', 'train', 'recipe.yaml', '--runs', 'runs' + os.environ['RANK']]; main()"
    )
    result = subprocess.run(
        two(sys.executable, "-c", program),
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert result.returncode == 1
    assert "is not the same folder on every machine" in " ".join(result.stderr.split())
    assert not [*tmp_path.glob("runs*/small/iteration-*")]
