"""Published weights, loaded again, give the log-probabilities that training recorded."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kto_release.errors import ModelError
from kto_release.recipe import Recipe
from kto_release.release import publish
from kto_release.release.reload import CheckRow, logprobs, worst
from kto_release.run import Run


def test_a_uniform_model_gives_minus_log_vocabulary(tmp_path: Path, tiny_model: Path) -> None:
    """With an output layer of zeros every token has probability 1/V: three answer tokens give -3 log V, exactly.

    The prompt's length does not matter, and its own tokens don't count.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    model.save_pretrained(tmp_path / "uniform")
    rows = [
        CheckRow("short", np.array([5], np.int32), np.array([6, 7, 8], np.int32)),
        CheckRow("long", np.arange(5, 50, dtype=np.int32), np.array([6, 7, 8], np.int32)),
    ]
    found = logprobs(tmp_path / "uniform", rows)
    expected = -3 * math.log(model.config.vocab_size)
    assert found == {"short": pytest.approx(expected, abs=1e-5), "long": pytest.approx(expected, abs=1e-5)}


def test_each_token_is_predicted_from_those_before_it(tiny_model: Path) -> None:
    """The sum of log-probabilities is that of predicting one token after the other."""
    from transformers import AutoModelForCausalLM

    prompt, completion = [5, 6, 7], [20, 21, 22, 23]
    found = logprobs(tiny_model, [CheckRow("row", np.array(prompt, np.int32), np.array(completion, np.int32))])
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total = 0.0
    with torch.no_grad():
        for place, token in enumerate(completion):
            logits = model(torch.tensor([prompt + completion[:place]])).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
    assert found["row"] == pytest.approx(total, abs=1e-4)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """What can't be loaded is one clear error."""
    with pytest.raises(ModelError, match="transformers can't load the model in 'nothing'"):
        logprobs(tmp_path / "nothing", [])


def test_worst_is_the_largest_difference() -> None:
    """In nats, whichever sign it has."""
    assert worst({"a": -1.0, "b": -3.0}, {"a": -1.5, "b": -2.0}) == 1.0


@pytest.mark.slow
def test_after_a_real_training(tmp_path: Path, tiny_model: Path) -> None:
    """Training records log π of its model; transformers alone finds the same, and the published weights stay near.

    In fp32 two ways to add up the same numbers differ by about 1e-4 nats here.
    """
    from kto_release.train import train

    rows = [
        {"prompt": f"What is {a} plus {b}?", "chosen": f"It is {a + b}.", "rejected": "Who knows? Nobody."}
        for a in range(1, 6)
        for b in range(1, 4)
    ]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe.model_validate(
        {
            "name": "trained",
            "model": {"base": str(tiny_model)},
            "data": {"source": str(tmp_path / "f.jsonl"), "partitions": 1, "held_out": 0.2},
            "train": {"learning_rate": 1e-3, "batch_size": 8, "max_length": 128, "probe_tokens": 4},
            "release": {"repo_id": "tester/trained", "data_license": "mit"},
        }
    )
    run = Run(recipe, tmp_path / "runs" / "trained")
    train(run)
    publish(run, dry_run=True)
    reload = json.loads((run.release_folder / "bundle" / "records" / "reload.json").read_text())
    [record] = run.iteration_records()
    assert reload["recorded"] == record.logprobs
    assert len(record.logprobs) == 4
    assert worst(reload["trained"], reload["recorded"]) < 1e-3
    assert 0 < worst(reload["published"], reload["trained"]) < worst(reload["initial"], reload["trained"]) / 10
    checks = {c["name"]: c["state"] for c in json.loads((run.release_folder / "checklist.json").read_text())["checks"]}
    assert checks["weights-reloaded"] == "passed"
