"""What stops or hinders a training: memory, numbers that are not finite, a full disk, rules, trackers."""

import os
import re
import shutil
import subprocess

import pytest
import torch
from feedback_files import write_recipe
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook, register_module_full_backward_hook
from torch.testing import assert_close
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from kto_release.digests import file_sha256
from kto_release.errors import RecipeError, RunError
from kto_release.files import read_jsonl
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train

pytestmark = pytest.mark.slow

NAMES = ("train/rewards/chosen", "train/rewards/margins", "train/kl/raw", "train/logps/rejected", "train/grad_norm")


def opened(folder, model, **changes):
    folder.mkdir(exist_ok=True)
    return Run.open(load_recipe(write_recipe(folder, model, **changes)), folder / "runs")


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """The weights of a run that had memory enough."""
    run = opened(tmp_path_factory.mktemp("whole"), tiny_model)
    train(run)
    return load_file(run.iteration(2) / "model" / "model.safetensors")


def test_out_of_memory_halves_the_packs_until_they_fit(whole, tiny_model, tmp_path, capsys):
    """A device with room for the activations of 130 tokens, and so for packs of 128.

    Each iteration begins with what the recipe says. The weights agree to 2e-5, as with any other packing.
    """
    run = opened(tmp_path, tiny_model)

    def small_device(module, inputs):
        if isinstance(module, nn.Embedding) and torch.is_grad_enabled() and inputs[0].numel() > 130:
            raise torch.OutOfMemoryError("130 tokens at most")

    hook = register_module_forward_pre_hook(small_device)
    try:
        train(run)
    finally:
        hook.remove()
    told = re.findall(r"going on with tokens_per_pack (\d+); the result is the same", capsys.readouterr().err)
    assert told == ["2048", "1024", "512", "256", "128"] * 2
    assert_close(load_file(run.iteration(2) / "model" / "model.safetensors"), whole, rtol=0, atol=2e-5)


def test_out_of_memory_in_the_middle_of_a_step_leaves_nothing_of_it(whole, tiny_model, tmp_path, capsys):
    """The second pack of the first step fails, when the first has left its gradient.

    Fails if that gradient stays when the step is done again.
    """
    run = opened(tmp_path, tiny_model, **{"train.tokens_per_pack": 128})
    calls = []

    def fails_once(module, inputs):
        if isinstance(module, nn.Embedding) and torch.is_grad_enabled():
            calls.append(inputs)
            if len(calls) == 2:
                raise torch.OutOfMemoryError("once")

    hook = register_module_forward_pre_hook(fails_once)
    try:
        train(run)
    finally:
        hook.remove()
    assert capsys.readouterr().err.count("out of memory: going on with tokens_per_pack 64;") == 1
    assert_close(load_file(run.iteration(2) / "model" / "model.safetensors"), whole, rtol=0, atol=2e-5)


def test_memory_that_never_suffices_is_an_error(tiny_model, tmp_path):
    """Where not even the smallest packs fit, the run says what to change, and can go on later."""
    run = opened(tmp_path, tiny_model)

    def no_room(module, inputs):
        if isinstance(module, nn.Embedding) and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("no room")

    hook = register_module_forward_pre_hook(no_room)
    try:
        with pytest.raises(RunError) as caught:
            train(run)
    finally:
        hook.remove()
    assert caught.value.problem == "out of memory with tokens_per_pack 64"
    assert not (run.iteration(1) / "model").exists()


def test_a_loss_that_is_not_finite_stops_and_names_the_rows(tiny_model, tmp_path):
    """A learning rate beyond all reason: the second step's log-probabilities are NaN, and nothing goes on from there."""
    run = opened(tmp_path, tiny_model, **{"train.learning_rate": 1e30, "train.warmup_ratio": 0.0})
    with pytest.raises(RunError) as caught:
        train(run)
    found = re.fullmatch(
        r"step 2: the log-probability is not finite for one\.jsonl, rows (\d+(, \d+)*)", caught.value.problem
    )
    assert found
    assert {int(row) for row in found.group(1).split(", ")} <= set(range(1, 9))
    assert [row["step"] for row in read_jsonl(run.iteration(1) / "metrics.jsonl")] == [1]
    assert not (run.iteration(1) / "model").exists()


def test_a_gradient_that_is_not_finite_stops_before_the_step(tiny_model, tmp_path):
    """The weights are not touched by it: no metrics of that step, no model."""
    run = opened(tmp_path, tiny_model)

    def overflow(module, grad_input, grad_output):
        if isinstance(module, LlamaDecoderLayer):
            return tuple(None if grad is None else grad * torch.inf for grad in grad_input)
        return None

    hook = register_module_full_backward_hook(overflow)
    try:
        with pytest.raises(RunError) as caught:
            train(run)
    finally:
        hook.remove()
    assert re.fullmatch(
        r"step 1: the gradient is not finite; its batch is one\.jsonl, rows \d+, \d+, \d+", caught.value.problem
    )
    assert not (run.iteration(1) / "metrics.jsonl").exists()


def command(cli, folder, runs):
    return subprocess.run(
        [cli, "train", str(folder / "recipe.yaml"), "--runs", str(runs)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_full_disk_is_one_error_and_a_later_try_goes_on(cli, tiny_model, tmp_path):
    """On a disk that is really full: tokens, a checkpoint's weights or its optimizer state can't be written.

    One message, no traceback; with room again the same command gives the bytes of a run that always had room.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root on Linux")

    def weights(runs):
        return [file_sha256(runs / "small" / f"iteration-{n}" / "model" / "model.safetensors") for n in (1, 2)]

    try:
        write_recipe(tmp_path, tiny_model, **{"train.checkpoint_every": 1})
        assert command(cli, tmp_path, tmp_path / "runs").returncode == 0
        for free in (20, 200, 700):
            runs, ballast = disk / str(free), disk / "ballast"
            available = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            ballast.write_bytes(b"\0" * (available - free * 1024))
            failed = command(cli, tmp_path, runs)
            ballast.unlink()
            assert failed.returncode == 1
            assert "Traceback" not in failed.stderr
            assert re.search(r"^error: the disk of '.*/small' is full: ", failed.stderr, re.MULTILINE)
            assert command(cli, tmp_path, runs).returncode == 0
            assert weights(runs) == weights(tmp_path / "runs")
            shutil.rmtree(runs)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_rule_stops_the_run_after_the_iteration_that_breaks_it(tiny_model, tmp_path, capsys):
    """Two iterations are asked for; the first one's KL is above the limit, so there is no second."""
    run = opened(tmp_path, tiny_model, **{"train.stop_if": [{"metric": "kl_initial", "above": -1000.0}]})
    records = train(run)
    assert [record.iteration for record in records] == [1]
    kl = records[0].probe.kl_initial
    assert f"stopped after iteration 1: kl_initial is {kl:.4g}, above -1000" in capsys.readouterr().err
    assert not run.iteration(2).joinpath("metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train.report_to": ["tensorbord"]}, "train.report_to: 'tensorbord' is no tracker that transformers knows"),
        ({"train.report_to": ["neptune"]}, "train.report_to: 'neptune' is not installed"),
        (
            {"train.stop_if": [{"metric": "ended", "below": 0.5}], "train.probe_prompts": 0},
            "train.stop_if: ended needs train.probe_prompts above 0",
        ),
        (
            {"train.stop_if": [{"metric": "preference_accuracy", "below": 0.5}], "data.held_out": None},
            "train.stop_if: preference_accuracy needs data.held_out",
        ),
    ],
)
def test_what_would_fail_after_hours_is_refused_at_once(tiny_model, tmp_path, changes, problem):
    """Before the first step, and before anything is written."""
    run = opened(tmp_path, tiny_model, **changes)
    with pytest.raises(RecipeError) as caught:
        train(run)
    assert caught.value.problem == problem
    assert not run.path.exists()


def test_metrics_go_to_the_tracker_of_the_recipe(tiny_model, tmp_path, monkeypatch):
    """TensorBoard's file holds our metrics under their usual names, as transformers spells them for it."""
    pytest.importorskip("tensorboardX")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    run = opened(tmp_path, tiny_model, **{"train.report_to": ["tensorboard"]})
    train(run)
    names = set()
    for path in (tmp_path / "board").rglob("events.out.tfevents.*"):
        names |= {name for name in NAMES if name.encode() in path.read_bytes()}
    assert names == set(NAMES)
