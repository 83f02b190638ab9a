"""A base model that does not fit its configuration, its tokenizer or its rows: one sentence, before anything trains."""

import json
import shutil

import pytest
import torch
from command import run_command
from feedback_files import write_recipe
from safetensors.torch import load_file, save_file

from kto_release.errors import ModelError
from kto_release.loading import load_whole
from kto_release.train.device import check_room


@pytest.fixture
def base(tmp_path, tiny_model):
    return shutil.copytree(tiny_model, tmp_path / "base")


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


UP = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: {f"_orig_mod.{k}": v for k, v in w.items()}, "without the prefix '_orig_mod.'"),
        (lambda w: {f"module.{k}": v for k, v in w.items()}, "without the prefix 'module.'"),
        (lambda w: {k: v for k, v in w.items() if k != "lm_head.weight"}, "1 missing: lm_head.weight"),
        (lambda w: {k: v for k, v in w.items() if k != UP}, f"1 missing: {UP}"),
        (lambda w: {**w, "model.more.weight": torch.ones(2)}, "1 unknown: model.more.weight"),
        (lambda w: {**w, UP: torch.ones(95, 48)}, f"1 of another shape: {UP} (95 x 48 stored, 96 x 48 needed)"),
    ],
)
def test_weights_that_do_not_fit_are_named(base, change, said):
    """Prefixed, missing, unknown and reshaped tensors; what fits loads."""
    load_whole(base)
    rewrite(base, change)
    with pytest.raises(ModelError, match="do not fit its configuration") as caught:
        load_whole(base)
    assert said in str(caught.value)


def test_tensors_that_a_model_computes_by_itself_are_no_fault(base):
    """Old checkpoints hold them."""
    rewrite(base, lambda w: {**w, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)})
    load_whole(base)


def configure(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": 200}, "is beyond the embedding of 'base' (200 rows)"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "are quantised (gptq)"),
        ({"max_position_embeddings": 32}, "but 'base' has 32 positions"),
        ({"model_type": "no_such_type"}, "the configuration of 'base' can't be used: "),
        ({"num_hidden_layers": "two"}, "the configuration of 'base' can't be used: "),
        ({"model_type": "t5"}, "transformers makes no causal language model of 'base': "),
    ],
)
def test_a_base_that_does_not_fit_is_refused_in_the_dry_run_too(monkeypatch, capfd, tmp_path, base, dry, changes, said):
    """Ids beyond the embedding, quantised weights, conversations beyond the positions, types that are none."""
    configure(base, **changes)
    recipe = write_recipe(tmp_path, base)
    options = ["--dry-run"] if dry else []
    code, _, err = run_command(monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs", *options)
    assert code == 1
    assert said in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize("dry", [True, False])
def test_adapters_for_modules_that_are_not_there(monkeypatch, capfd, tmp_path, tiny_model, dry):
    """The modules that there are, are named, before anything trains."""
    recipe = write_recipe(tmp_path, tiny_model, **{"train.lora": {"target_modules": ["no_such"]}})
    options = ["--dry-run"] if dry else []
    code, _, err = run_command(monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs", *options)
    assert code == 1
    assert "error: train.lora.target_modules: ['no_such']: " in err
    assert "expected: all-linear, or some of down_proj, embed_tokens, gate_proj, k_proj, " in err


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_seeds_have_bounds(monkeypatch, capfd, tmp_path, tiny_model, seed):
    """Every iteration's own seed must be one that all libraries take."""
    recipe = write_recipe(tmp_path, tiny_model, **{"train.seed": seed})
    code, _, err = run_command(monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs", "--dry-run")
    assert code == 1
    assert f"  - train.seed: {seed}: Input should be " in err


def test_room_for_gradients_and_moments_is_looked_at_first():
    """By hand: 2**28 weights of 4 bytes are 1 GiB, with gradients and two moments 4 GiB; frozen ones 1 GiB."""
    model = torch.nn.Linear(2**14, 2**14, bias=False, device="meta")
    check_room(model, 4 * 2**30)
    with pytest.raises(ModelError) as caught:
        check_room(model, 4 * 2**30 - 1)
    assert str(caught.value).splitlines()[0] == (
        "gradients and optimizer state need 3.0 GiB beside 1.0 GiB of weights, and this device has room for 4.0 GiB in all"
    )
    check_room(model.requires_grad_(False), 2**30)
