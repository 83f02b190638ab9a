"""`train --dry-run`: what it shows, and that it leaves nothing behind."""

from pathlib import Path

from command import run_command
from feedback_files import write_recipe

SEED = Path(__file__).parents[2] / "recipes" / "contextual-kto-mistral-pairrm.yaml"


def test_plan_of_a_small_recipe(monkeypatch, capfd, tmp_path, tiny_model):
    """Rows, steps and memory; ids, label, siblings and KL partner of sample rows; and no run directory."""
    recipe = write_recipe(tmp_path, tiny_model)
    result = run_command(monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs", "--dry-run")
    assert result.code == 0
    assert "iterations 2, reference: previous" in result.out
    assert "memory     about " in result.out
    assert "disk       about " in result.out
    assert "minutes for the iterations' steps and references on one device such as this cpu" in result.out
    assert "padding tokens: 0" in result.out
    assert "; its prompt is shared by 2 completions" in result.out
    assert result.out.count("  KL partner, ") == 2
    assert not (tmp_path / "runs").exists()


def test_the_seed_recipe_without_a_hub(monkeypatch, capfd, tmp_path):
    """As far as it goes without the network, with one line for each thing that could not be reached."""
    result = run_command(monkeypatch, capfd, "train", SEED, "--runs", tmp_path / "runs", "--dry-run")
    assert result.code == 0
    assert result.out == (
        "\n"
        "Plan of contextual-kto-mistral-pairrm\n"
        "model      mistralai/Mistral-7B-Instruct-v0.2, template tulu_v2\n"
        "feedback   snorkelai/Snorkel-Mistral-PairRM-DPO-Dataset\n"
        "iterations 3, reference: previous\n"
        "training   all weights in fp32, beta 0.1, learning rate 5e-07, 32 feedback per step, 1 epoch, max_length 2048\n"
        "partitions train_iteration_1, train_iteration_2, train_iteration_3\n"
    )
    lines = result.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("warning: not shown: 'mistralai/Mistral-7B-Instruct-v0.2' is no folder here")
    assert lines[1] == (
        "warning: not shown: rows and tokens of 'snorkelai/Snorkel-Mistral-PairRM-DPO-Dataset', "
        "since the Hub can't be reached"
    )


def test_memory_follows_the_configuration(monkeypatch, capfd, tmp_path, tiny_model):
    """With FSDP over eight devices the estimate names them, and weights, gradients and moments are split."""
    recipe = write_recipe(tmp_path, tiny_model)
    config = Path(__file__).parents[2] / "recipes" / "accelerate" / "fsdp2-8gpu.yaml"
    result = run_command(
        monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs", "--dry-run", "--launch", config
    )
    assert result.code == 0
    assert "GiB per device (8 devices, FSDP)" in result.out


def test_memory_by_hand():
    """SmolLM2's shapes: 134,515,008 parameters make 0.50 GiB of fp32 weights, as much of gradients, twice of moments."""
    from transformers import LlamaConfig

    from kto_release.recipe import TrainSection
    from kto_release.train.launch_file import Devices
    from kto_release.train.memory import GIB, estimate

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    found = estimate(config, TrainSection(), Devices(1, 1, "one"), bf16=True, checkpointing=True)
    assert found.weights == 4 * 134_515_008
    assert found.gradients == 4 * 134_515_008
    assert found.optimizer == 8 * 134_515_008
    assert round(found.weights / GIB, 2) == 0.5


def test_memory_is_split_over_the_shards():
    """Over eight devices each holds an eighth of the gradients and of the moments; without shards, all of them."""
    from transformers import LlamaConfig

    from kto_release.recipe import TrainSection
    from kto_release.train.launch_file import Devices
    from kto_release.train.memory import estimate

    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    one, copies, split = (
        estimate(config, TrainSection(), devices, bf16=True, checkpointing=True)
        for devices in (Devices(1, 1, "one"), Devices(8, 1, "copies"), Devices(8, 8, "split"))
    )
    assert one.copies == one.weights / 2  # bf16 of fp32 weights
    assert copies == one._replace(buckets=one.gradients)
    assert split.gradients == one.gradients / 8
    assert split.optimizer == one.optimizer / 8
    assert split.weights == one.weights / 8 + one.weights / 2  # two layers are there in bf16 at a time
    assert (split.copies, split.buckets) == (0, 0)
    assert (split.activations, split.logits) == (one.activations, one.logits)


def test_a_launch_configuration_that_is_none(monkeypatch, capfd, tmp_path, tiny_model):
    """A missing file is named before anything starts."""
    recipe = write_recipe(tmp_path, tiny_model)
    result = run_command(
        monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs", "--launch", tmp_path / "none.yaml"
    )
    assert (result.code, result.err) == (
        1,
        f"error: no such accelerate configuration: '{tmp_path / 'none.yaml'}'\n"
        "  expected: a file as `accelerate config` writes it; recipes/accelerate/ has some\n",
    )


def test_what_a_machine_needs_beside_its_devices(tmp_path, tiny_model):
    """SmolLM2's 0.501 GiB of fp32 weights in two iterations: eight processes hold eight copies in host memory, or one
    where the launch says so; on disk three models (one being written) and three checkpoints of 12 bytes a parameter
    while training, two and a half models after."""
    from transformers import LlamaConfig

    from kto_release.recipe_file import load_recipe
    from kto_release.train.launch_file import Devices
    from kto_release.train.memory import around

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    recipe, model = load_recipe(write_recipe(tmp_path, tiny_model)), 4 * 134_515_008
    every = around(config, recipe, Devices(8, 8, "split", 8))
    first = around(config, recipe, Devices(8, 8, "split", 8, main_only=True))
    assert every == (8 * model, 3 * model + 9 * model, 2.5 * model)
    assert first == every._replace(host=model)


def test_the_work_of_an_iteration(tmp_path, tiny_model):
    """Tokens that the steps train on are counted as the trainer counts them, and halve on two devices."""
    from kto_release.recipe_file import load_recipe
    from kto_release.run import Run
    from kto_release.train.batches import all_batches
    from kto_release.train.inputs import prepare
    from kto_release.train.pace import count_work

    run = Run.open(load_recipe(write_recipe(tmp_path, tiny_model)), tmp_path / "runs")
    run.create()
    (tokens, _), train = prepare(run).tokens, run.recipe.train
    batches = all_batches(tokens, train, 1)
    one, two = (count_work(tokens, batches, train, devices) for devices in (1, 2))
    pairs = sum(len(tokens.prompt(prompt)) for prompt in range(tokens.facts.prompts))
    answers = sum(len(tokens.completion(feedback)) - 1 for feedback in range(len(tokens)))
    assert pairs + answers <= one.trained  # prompts whose answers are in two batches are computed twice
    assert one.trained / 2 <= two.trained < one.trained
    assert one.forward > one.trained
