"""What a launch configuration may decide, and what the recipe keeps."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from kto_release.errors import RecipeError, RunError
from kto_release.train.distributed import PRECISION, check_kind, heed_launch, one_device
from kto_release.train.launch import command
from kto_release.train.saved import check_trained, is_complete


@pytest.fixture
def launched(monkeypatch):
    """Sets what accelerate's launcher would have set; everything is as before afterwards."""
    monkeypatch.setenv(PRECISION, "no")

    def configure(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return configure


def test_deepspeed_is_refused_in_one_sentence(tmp_path, launched):
    """By its configuration before anything starts, and by its environment where another launcher set that."""
    expected = (
        "DeepSpeed is not supported\n"
        "  expected: FSDP2, which splits weights, gradients and optimizer state in the same way\n"
        "  to do: use recipes/accelerate/fsdp2-8gpu.yaml"
    )
    config = tmp_path / "zero.yaml"
    config.write_text("distributed_type: DEEPSPEED\nnum_processes: 8\ndeepspeed_config: {zero_stage: 3}\n")
    with pytest.raises(RecipeError) as by_file:
        command(config, Path("recipe.yaml"), [], Path("runs"))
    launched(ACCELERATE_USE_DEEPSPEED="true")
    with pytest.raises(RecipeError) as by_environment:
        heed_launch("fp32")
    assert [str(by_file.value), str(by_environment.value)] == [expected, expected]


@pytest.mark.parametrize(("precision", "said", "left"), [("fp32", "bf16", "no"), ("bf16", "fp16", "bf16")])
def test_the_recipe_chooses_the_precision(launched, capsys, precision, said, left):
    """Another mixed_precision of the launch is named and not used."""
    launched(**{PRECISION: said})
    heed_launch(precision)
    assert os.environ[PRECISION] == left
    assert f"mixed_precision: {said} is not used: the recipe's precision is {precision}" in " ".join(
        capsys.readouterr().err.split()
    )


def test_fsdp_of_another_kind_is_refused(launched):
    """Version 1, and 4-bit weights that FSDP2 would not split."""
    launched(ACCELERATE_USE_FSDP="true", FSDP_VERSION="1")
    with pytest.raises(RecipeError, match="FSDP version 1"):
        heed_launch("fp32")
    launched(FSDP_VERSION="2")
    heed_launch("fp32")
    with pytest.raises(RecipeError, match="4-bit weights are not split"):
        heed_launch("fp32", quantized=True)


def test_one_of_several_gpus_is_used_and_the_others_named(capsys):
    """Transformers would cut every pack in two."""
    args = SimpleNamespace(n_gpu=3, _n_gpu=3)
    one_device(args)
    assert args._n_gpu == 1
    assert "cuda:0 is used; cuda:1, cuda:2 are idle" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_of_another_kind_of_launch_is_refused(tmp_path):
    """In both directions, and the same kind is taken."""
    (tmp_path / "checkpoint-3").mkdir()
    whole = tmp_path / "checkpoint-3"
    check_kind(whole, SimpleNamespace(is_fsdp2=False))
    with pytest.raises(RunError, match="written under one process or data parallelism, and this is FSDP2"):
        check_kind(whole, SimpleNamespace(is_fsdp2=True))
    (whole / "pytorch_model_fsdp.bin").touch()
    check_kind(whole, SimpleNamespace(is_fsdp2=True))
    with pytest.raises(RunError, match="written under FSDP2, and this is one process or data parallelism"):
        check_kind(whole, SimpleNamespace(is_fsdp2=False))


def test_weights_that_are_not_finite_become_no_model(tmp_path):
    """The tensor is named. Neither do too few weights, and a folder without weights is no model."""
    parent, part = tmp_path / "parent", tmp_path / "part"
    for folder in (parent, part):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    assert not is_complete(part)
    save_file({"a": torch.ones(3), "b": torch.ones(2)}, parent / "model.safetensors")
    save_file({"a": torch.ones(3), "b": torch.tensor([1.0, float("nan")])}, part / "model.safetensors")
    assert is_complete(part)
    with pytest.raises(RunError, match="after the last step these weights are not finite: b"):
        check_trained(part, parent)
    save_file({"a": torch.ones(3)}, part / "model.safetensors")
    with pytest.raises(RunError, match="saved with 3 parameters of 5"):
        check_trained(part, parent)
