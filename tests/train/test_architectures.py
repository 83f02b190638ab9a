"""Every causal model type of transformers: right by trees, right by plain sequences, or refused with its reason."""

import copy
import json

import numpy as np
import pytest
import torch
from architectures import TYPES, UNBUILDABLE, VOCABULARY, build
from feedback_files import write_recipe
from transformers import AutoConfig, AutoModelForCausalLM

from kto_release.errors import ModelError, RunError
from kto_release.files import read_jsonl
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import logps_store, train
from kto_release.train.logprobs import branch_logprobs, teach_trees
from kto_release.train.plain import PLAIN, TREES
from kto_release.train.proof import prove
from kto_release.train.tokens import Tokens
from kto_release.train.tree import Branch, Tree, lay

pytestmark = pytest.mark.slow

BY_TREES = {
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma3_text",
    "phi3",
    "gpt2",
    "gpt_neox",
    "olmo3",
}
BY_PLAIN = {
    "gemma2", "gpt_oss", "granite", "cohere", "qwen3_next", "lfm2", "stablelm", "falcon", "bloom", "mpt", "nemotron",
    "phimoe", "doge", "rwkv", "xglm", "granitemoehybrid", "mamba",
}  # fmt: skip
NOT_CAUSAL = {"cpmant", "xlnet"}
DRAFTS = {"gemma4_assistant", "gemma4_unified_assistant"}
"""Their input is another model's hidden states: no sequence of tokens can be computed."""


def ids(seed, count):
    return np.random.default_rng(seed).integers(3, VOCABULARY, count).astype(np.int32)


TREE_LIST = [
    Tree(ids(0, 9), [Branch(ids(1, 6), 0), Branch(ids(2, 5), 1)]),
    Tree(ids(3, 30), [Branch(ids(4, 14), 2)]),
    Tree(ids(5, 7), [Branch(ids(6, 1), 3), Branch(ids(7, 4), 4)]),
]


def one_at_a_time(model, trees):
    """log pi of each branch by a forward pass of its own."""
    found = []
    for tree in trees:
        for branch in tree.branches:
            whole = torch.from_numpy(np.concatenate([tree.prompt, branch.ids]).astype(np.int64))
            rows = model(input_ids=whole[None], use_cache=False).logits[0].float().log_softmax(-1)
            targets = whole[len(tree.prompt) :, None]
            found.append(float(rows[len(tree.prompt) - 1 : -1].gather(1, targets).sum()))
    return found


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_right_or_refused(kind):
    """What a taught model gives for a pack is what an untouched one gives for each sequence, by whatever road.

    A type is refused only if what follows a token changes its probability, or if it can't run a plain sequence.
    """
    untouched = build(kind)
    if isinstance(untouched, str):
        assert UNBUILDABLE[kind] in untouched
        pytest.skip(f"no tiny {kind}: {untouched}")
    model = copy.deepcopy(untouched)
    teach_trees(model)
    try:
        chosen = prove(model, TREE_LIST)
    except ModelError as error:
        assert kind in NOT_CAUSAL | DRAFTS, error
        if kind in NOT_CAUSAL:
            assert "what follows a token" in str(error)
            return
        assert "can't compute the log-probabilities of a plain sequence" in error.problem
        with pytest.raises((RuntimeError, ValueError, LookupError)), torch.no_grad():
            one_at_a_time(untouched, TREE_LIST)
        return
    assert kind not in NOT_CAUSAL | DRAFTS
    with torch.no_grad():
        expected = one_at_a_time(untouched, TREE_LIST)
        found = branch_logprobs(model, lay(TREE_LIST)).tolist()
    assert found == pytest.approx(expected, rel=1e-5, abs=2e-4)
    assert (chosen.name == PLAIN) == (chosen.reason is not None)
    assert kind not in BY_TREES or chosen.name == TREES
    assert kind not in BY_PLAIN or chosen.name == PLAIN


def test_plain_sequences_give_gradients_of_single_sequences():
    """The gradient through a pack of a recurrent model is that of one sequence at a time."""
    weights = torch.linspace(-1, 2, 5)
    taught, plain = build("lfm2"), build("lfm2")
    teach_trees(taught)
    prove(taught, TREE_LIST)
    (branch_logprobs(taught, lay(TREE_LIST)) * weights).sum().backward()
    total = 0.0
    slot = 0
    for tree in TREE_LIST:
        for branch in tree.branches:
            whole = torch.from_numpy(np.concatenate([tree.prompt, branch.ids]).astype(np.int64))
            rows = plain(input_ids=whole[None]).logits[0].log_softmax(-1)
            logp = rows[len(tree.prompt) - 1 : -1].gather(1, whole[len(tree.prompt) :, None]).sum()
            total = total + logp * weights[slot]
            slot += 1
    total.backward()
    for ours, theirs in zip(taught.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_weights_that_are_not_numbers_are_named_before_any_road():
    """NaN in the weights is said as what it is."""
    model = build("llama")
    teach_trees(model)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        prove(model, TREE_LIST)


def with_weights_of(folder, tiny_model, kind, **changes):
    """The tiny model's tokenizer with a model of another type and the same vocabulary."""
    import shutil

    shutil.copytree(tiny_model, folder)
    own = json.loads((folder / "config.json").read_text())
    keys = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 4, "num_key_value_heads": 4}
    if kind == "gpt2":
        size = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048}
    config = AutoConfig.for_model(
        kind, **{key: own[key] for key in keys}, **{"initializer_range": 0.3, **size, **changes}
    )
    torch.manual_seed(0)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    return folder


def trained(folder, base, **changes):
    folder.mkdir(exist_ok=True)
    run = Run.open(load_recipe(write_recipe(folder, base, **changes)), folder / "runs")
    train(run)
    return run


def worst_difference(run, base):
    """Largest difference of the stored reference from plain forward passes of the base model."""
    tokens = Tokens(run.iteration(1) / "tokens")
    (stored,) = (np.load(path) for path in (run.iteration(1) / "reference").glob("*.npz"))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    pairs = [divmod(key, len(tokens)) for key in stored["keys_K"].tolist()]
    trees = [Tree(tokens.prompt(prompt), [Branch(tokens.completion(own), 0)]) for prompt, own in pairs]
    with torch.no_grad():
        expected = np.array(one_at_a_time(model, trees))
    return float(np.abs(expected - stored["logps_K"]).max())


LONGROPE = {
    "max_position_embeddings": 2048,
    "original_max_position_embeddings": 40,
    "sliding_window": None,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0, 3.0, 4.0, 5.0],
        "original_max_position_embeddings": 40,
    },
}


@pytest.mark.parametrize(("kind", "changes"), [("stablelm", {}), ("phi3", LONGROPE)])
def test_a_run_by_plain_sequences(tmp_path, tiny_model, kind, changes, capsys):
    """Its reference is that of plain transformers, its first step is right, packing is nothing, and the record says so.

    The model with LongRoPE is right on short rows by trees, and not on the partition's longest.
    """
    base = with_weights_of(tmp_path / "base", tiny_model, kind, **changes)
    runs = [
        trained(
            tmp_path / str(size),
            base,
            **{"train.tokens_per_pack": size, "train.precision": "fp32", "data.partitions": ["one"]},
        )
        for size in (4096, 64)
    ]
    assert capsys.readouterr().err.count("computed one sequence at a time") >= 1
    assert worst_difference(runs[0], base) < 1e-3
    first, second = (read_jsonl(run.iteration(1) / "metrics.jsonl") for run in runs)
    assert [row["loss"] for row in first] == pytest.approx([row["loss"] for row in second], abs=1e-6)
    assert first[0]["kl/raw"] == pytest.approx(0, abs=1e-4)
    facts = runs[0].iteration_record(1).training
    assert facts.computed_by == "plain sequences"
    assert facts.computed_by_reason is not None


def test_dropout_of_the_base_model_is_off(tmp_path, tiny_model):
    """GPT-2 drops a tenth of everything in training mode: its policy starts as its reference all the same."""
    base = with_weights_of(tmp_path / "base", tiny_model, "gpt2")
    run = trained(
        tmp_path / "run",
        base,
        **{"train.precision": "fp32", "train.gradient_checkpointing": True, "data.partitions": ["one"]},
    )
    first = read_jsonl(run.iteration(1) / "metrics.jsonl")[0]
    assert first["kl/raw"] == pytest.approx(0, abs=1e-3)
    config = json.loads((run.iteration(1) / "model" / "config.json").read_text())
    assert config["resid_pdrop"] == 0.1


def test_a_first_step_that_is_not_its_reference_stops(tmp_path, tiny_model, monkeypatch):
    """Stored references of other weights: the run stops at step 1 and says what is wrong."""
    real = logps_store.compute

    def shifted(*args, **kwargs):
        found = real(*args, **kwargs)
        return found._replace(logps_K=found.logps_K + 0.5)

    monkeypatch.setattr(logps_store, "compute", shifted)
    with pytest.raises(RunError, match="step 1: an answer has log-probability .* under the policy"):
        trained(tmp_path / "run", tiny_model, **{"train.precision": "fp32"})
