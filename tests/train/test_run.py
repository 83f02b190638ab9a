"""A whole run of two iterations with a tiny real model: what every step computes, and what is left behind."""

import json
import lzma

import numpy as np
import pytest
import torch
from feedback_files import pair, write_jsonl, write_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from kto_release.digests import file_sha256
from kto_release.files import read_jsonl
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train
from kto_release.train.batches import all_batches
from kto_release.train.tokens import Tokens

pytestmark = pytest.mark.slow


def run_once(folder, model, **changes):
    """Train a small recipe and return its run."""
    folder.mkdir(exist_ok=True)
    run = Run.open(load_recipe(write_recipe(folder, model, **changes)), folder / "runs")
    train(run)
    return run


def metrics(run, number):
    return read_jsonl(run.iteration(number) / "metrics.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    return run_once(tmp_path_factory.mktemp("run"), tiny_model)


def logps(model, prompt, completion):
    """log pi(completion | prompt) by the model's own logits."""
    ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
    rows = model(input_ids=ids[None]).logits[0].log_softmax(-1)
    return rows[len(prompt) - 1 : -1].gather(1, ids[len(prompt) :, None]).sum()


def test_first_step_of_every_iteration(finished):
    """At step one the policy is the reference: every loss is half its weight (here 1), and z is 0.

    Fails if iteration 2 keeps the initial model as its reference.
    """
    for number in (1, 2):
        first = metrics(finished, number)[0]
        assert first["loss"] == pytest.approx(0.5, abs=1e-6)
        assert first["kl/raw"] == pytest.approx(0.0, abs=1e-5)
        assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-5)


def test_weights_are_those_of_the_step_written_out(finished, tiny_model):
    """Iteration 1 again, by the formulas: one sequence at a time, z over the global batch, AdamW, linear schedule.

    The trained weights agree to 2e-5, where one step moves a weight by up to 1e-3 (AdamW magnifies rounding of gradients
    that are almost 0; 3e-6 was measured). Fails if z has a gradient or is taken per pack, if a partner is the own answer,
    or if the loss is averaged over packs.
    """
    train_section = finished.recipe.train
    tokens = Tokens(finished.iteration(1) / "tokens")
    batches = all_batches(tokens, train_section, 1)
    policy = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=0.0)
    steps = len(batches)
    warmup = round(train_section.warmup_ratio * steps)
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            rising = (step + 1) / warmup if step < warmup else (steps - step) / (steps - warmup)
            group["lr"] = 1e-3 * rising
        pairs = list(zip(batch.feedback_B, batch.partner_B, strict=True))

        def ratio(feedback, completion):
            prompt = tokens.prompt(tokens.prompt_F[feedback])
            with torch.no_grad():
                fixed = logps(reference, prompt, tokens.completion(completion))
            return logps(policy, prompt, tokens.completion(completion)) - fixed

        with torch.no_grad():
            z = max(0.0, float(torch.stack([ratio(f, partner) for f, partner in pairs]).mean()))
        losses = []
        for feedback, _ in pairs:
            sign = 1.0 if tokens.desirable_F[feedback] else -1.0
            losses.append(1 - torch.sigmoid(0.1 * sign * (ratio(feedback, feedback) - z)))
        loss = torch.stack(losses).mean()
        assert metrics(finished, 1)[step]["loss"] == pytest.approx(loss.item(), abs=2e-6)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), train_section.max_grad_norm)
        optimizer.step()
    trained = AutoModelForCausalLM.from_pretrained(finished.iteration(1) / "model", dtype=torch.float32)
    for (name, expected), actual in zip(policy.named_parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_packing_changes_nothing(finished, tiny_model, tmp_path):
    """With 64 instead of 4096 tokens per pack losses and gradient norms agree to 1e-5, values in nats to 1e-4.

    A log-probability of some hundred nats has a rounding of 1e-5 in fp32, and another packing adds in another order.
    """
    other = run_once(tmp_path, tiny_model, **{"train.tokens_per_pack": 64})
    for number in (1, 2):
        for mine, theirs in zip(metrics(finished, number), metrics(other, number), strict=True):
            for name, tolerance in {"loss": 1e-5, "grad_norm": 1e-5, "kl/raw": 1e-4, "rewards/margins": 1e-4}.items():
                assert mine[name] == pytest.approx(theirs[name], abs=tolerance, rel=1e-5), name


def test_recorded_log_probabilities_are_those_of_the_saved_model(finished):
    """What a record says of a model, plain transformers finds in its folder, to 1e-4 nats."""
    held = Tokens(finished.path / "held-out" / "tokens")
    for record in finished.iteration_records():
        model = AutoModelForCausalLM.from_pretrained(finished.path / record.model.path, dtype=torch.float32)
        assert len(record.logprobs) == 8
        for row in range(4):
            with torch.no_grad():
                expected = float(logps(model, held.prompt(held.prompt_F[row]), held.completion(row)))
            assert record.logprobs[held.digest(row)] == pytest.approx(expected, abs=1e-4)


def test_iterations_hand_over(finished):
    """Each iteration starts from the model before it, which is its reference; the first from the base."""
    first, second = finished.iteration_records()
    assert first.parent.name == first.reference.name == "initial"
    assert second.parent == second.reference == first.model
    assert second.model.sha256 != first.model.sha256 != first.parent.sha256


def test_the_model_is_fp32_with_its_tokenizer_and_no_pickle(finished):
    """The hand-over is lossless, and a folder holds what transformers loads, nothing that runs code."""
    folder = finished.iteration(2) / "model"
    assert finished.iteration_records()[1].model.dtype == "float32"
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert not [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_metrics_have_the_usual_names(finished):
    """metrics.jsonl holds what people look for, once per step."""
    rows = metrics(finished, 1)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {
        "loss", "kl", "kl/raw", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
        "logps/chosen", "logps/rejected", "grad_norm", "learning_rate", "tokens", "seconds", "feedback",
    } <= set(rows[0])  # fmt: skip


def test_the_probe_counts_held_out_pairs(finished):
    """Four held-out pairs stand behind the accuracy, and its interval holds it."""
    accuracy = finished.iteration_records()[1].probe.preference_accuracy
    assert accuracy.n == 4
    assert accuracy.low <= accuracy.value <= accuracy.high


def test_bf16_weights_would_lose_what_ours_keep(tiny_model, tmp_path):
    """At the default learning rate fp32 weights keep almost every update, and bf16 ones almost none.

    The movement of our weights, applied in as many steps to bf16 weights, is lost to rounding. Fails if the policy is
    loaded in the base's bf16.
    """
    run = run_once(tmp_path, tiny_model, **{"train.learning_rate": 5e-7, "data.partitions": ["one"]})
    steps = run.iteration_records()[0].training.steps
    initial = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).state_dict()
    trained = AutoModelForCausalLM.from_pretrained(run.iteration(1) / "model", dtype=torch.float32).state_dict()
    kept = lost = total = 0
    for name, weight in initial.items():
        movement = trained[name] - weight.float()
        rounded = weight.clone()
        for _ in range(steps):
            rounded += movement / steps
        kept += int((movement != 0).sum())
        lost += int(((rounded == weight) & (movement != 0)).sum())
        total += weight.numel()
    assert kept / total > 0.5  # the embeddings of tokens that never occur don't move
    assert lost / kept > 0.95


@pytest.mark.parametrize("label", [True, False], ids=["all desirable", "all undesirable"])
def test_feedback_of_one_label_only_trains(tiny_model, tmp_path, label, capsys):
    """Labelled rows without any of the other kind: every loss starts at one half, and the run warns."""
    rows = [{"prompt": f"Question {n}?", "completion": f"Answer {n} is it.", "label": label} for n in range(9)]
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "one.jsonl", rows)
    run = run_once(
        tmp_path, tiny_model, **{"data.partitions": ["one"], "data.held_out": None, "train.desirable_weight": 1.0}
    )
    first, *_, last = metrics(run, 1)
    assert first["loss"] == pytest.approx(0.5, abs=1e-6)
    assert last["loss"] != pytest.approx(0.5, abs=1e-6)
    assert ("logps/chosen" in first, "logps/rejected" in first) == (label, not label)
    assert f"there is no {'undesirable' if label else 'desirable'} answer" in capsys.readouterr().err


def test_every_epoch_has_its_own_order_and_partners(tiny_model, tmp_path):
    """Two epochs: each holds all feedback, in another order and with other KL partners, and only the first is at the
    reference."""
    run = run_once(tmp_path, tiny_model, **{"train.epochs": 2, "data.partitions": ["one"]})
    tokens = Tokens(run.iteration(1) / "tokens")
    batches = all_batches(tokens, run.recipe.train, 1)
    epochs = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    order, partner = ([np.concatenate([b[i] for b in epoch]).tolist() for epoch in epochs] for i in (0, 1))
    assert sorted(order[0]) == sorted(order[1]) == list(range(16))
    assert order[0] != order[1]
    assert dict(zip(order[0], partner[0], strict=True)) != dict(zip(order[1], partner[1], strict=True))
    rows = metrics(run, 1)
    assert len(rows) == 6
    assert rows[3]["loss"] != pytest.approx(0.5, abs=1e-6)


def test_instructions_of_alpaca_eval_among_the_prompts_are_told(tiny_model, tmp_path, shared_data, capsys):
    """A prompt that is one of AlpacaEval's 805 instructions, whatever its spaces, is counted, recorded and told."""
    path = shared_data / "alpaca_eval" / "outputs" / "gpt4_1106_preview.json.xz"
    instruction = json.loads(lzma.decompress(path.read_bytes()))[7]["instruction"]
    rows = [{**pair(n), "prompt": f"{instruction} \n" if n == 3 else f"Question {n}?"} for n in range(6)]
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "one.jsonl", rows)
    run = run_once(tmp_path, tiny_model, **{"data.partitions": ["one"], "train.max_length": 512})
    assert run.iteration_records()[0].partition.overlaps == {"alpaca_eval": 1, "held out": 0}
    assert "warning: iteration 1: 1 prompts are instructions of AlpacaEval" in capsys.readouterr().err


def test_a_second_call_skips_finished_iterations(finished):
    """Nothing is trained again: weights and records stay byte for byte."""
    files = [finished.iteration(n) / name for n in (1, 2) for name in ("record.json", "model/model.safetensors")]
    before = [file_sha256(path) for path in files]
    train(Run.open(finished.recipe, finished.path.parent))
    assert [file_sha256(path) for path in files] == before


def test_reference_initial_keeps_the_first_model(tiny_model, tmp_path):
    """With reference: initial, the second iteration's first loss is no longer one half: the policy has moved."""
    run = run_once(tmp_path, tiny_model, **{"train.reference": "initial"})
    records = run.iteration_records()
    assert records[1].reference == records[0].parent
    assert abs(metrics(run, 2)[0]["loss"] - 0.5) > 1e-3


def test_lora_is_merged_at_the_hand_over(tiny_model, tmp_path):
    """With adapters the saved model is whole, and the next iteration starts at one half again."""
    run = run_once(tmp_path, tiny_model, **{"train.lora": {"rank": 4}, "train.learning_rate": 1e-2})
    first = metrics(run, 2)[0]
    assert first["loss"] == pytest.approx(0.5, abs=1e-5)
    assert run.iteration_records()[0].model.sha256 != run.iteration_records()[1].model.sha256
    names = {path.name for path in (run.iteration(1) / "model").iterdir()}
    assert "model.safetensors" in names
    assert "adapter_model.safetensors" not in names
