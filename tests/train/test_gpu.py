"""What only an NVIDIA GPU can show: the kernel itself, a run on it against one on the CPU, and two of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from feedback_files import write_recipe
from packs import SIZES, pack_of, wide

from kto_release.files import read_jsonl
from kto_release.train.attention import tree_attention
from kto_release.train.varlen import key_plan

COMMAND = Path(sys.executable).parent
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU is visible to PyTorch"),
]


@pytest.mark.parametrize("window", [None, 3, 64])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_kernel_gives_what_the_parts_give(sizes, window):
    """Outputs and gradients in bf16, within 2e-2 of the largest of each; twice the same bits from the gather."""
    pack = pack_of(sizes)
    rng = torch.Generator("cuda").manual_seed(0)
    parts = [
        torch.randn(1, heads, len(pack.ids_T), 64, device="cuda", generator=rng).bfloat16().requires_grad_()
        for heads in (4, 2, 2)
    ]
    found = []
    for plan in (None, key_plan(pack.spans).to(torch.device("cuda"))):
        out, _ = tree_attention(
            torch.nn.Identity(), *parts, None, spans=pack.spans, sliding_window=window, key_plan=plan
        )
        found.append((out, *torch.autograd.grad(out.float().square().sum(), parts)))
    for mine, theirs in zip(*found, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-2 * scale)


def steps(folder, base, precision, *command, **environment):
    """The metrics of a run of one iteration, and what it warned of."""
    folder.mkdir()
    write_recipe(folder, base, **{"data.partitions": ["one"], "train.precision": precision})
    result = subprocess.run(
        [*command, COMMAND / "kto-release", "train", "recipe.yaml"],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return read_jsonl(folder / "runs" / "small" / "iteration-1" / "metrics.jsonl"), result.stderr


def test_a_run_in_bf16_is_near_one_on_the_cpu(tmp_path, tiny_model):
    """Losses to 0.02 and log-probabilities to a percent; the kernel proved itself, so nothing is warned of."""
    base = wide(tmp_path, tiny_model)
    gpu, said = steps(tmp_path / "gpu", base, "bf16")
    cpu, _ = steps(tmp_path / "cpu", base, "fp32", CUDA_VISIBLE_DEVICES="")
    assert "attention goes part by part" not in " ".join(said.split())
    for mine, theirs in zip(gpu, cpu, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=0.02)
        assert mine["logps/chosen"] == pytest.approx(theirs["logps/chosen"], rel=0.01)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two NVIDIA GPUs")
@pytest.mark.parametrize("kind", ["FSDP", "MULTI_GPU"])
def test_two_gpus_train_what_one_trains(tmp_path, tiny_model, kind):
    """By FSDP2 and by data parallelism over NCCL, in fp32 to 1e-4."""
    config = {"distributed_type": kind, "num_processes": 2, "num_machines": 1, "mixed_precision": "no"}
    if kind == "FSDP":
        config["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        }
    (tmp_path / "launch.yaml").write_text(json.dumps(config))
    launcher = shutil.which("accelerate", path=str(COMMAND))
    launch = [launcher, "launch", "--config_file", str(tmp_path / "launch.yaml"), "--no_python"]
    two, _ = steps(tmp_path / "two", tiny_model, "fp32", *launch)
    one, _ = steps(tmp_path / "one", tiny_model, "fp32", CUDA_VISIBLE_DEVICES="0")
    for mine, theirs in zip(two, one, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
