"""After a real training, the published weights give what training recorded, as far as rounding lets them."""

import json
from pathlib import Path

import pytest

from kto_release.kept import kept, noise
from kto_release.recipe import Recipe
from kto_release.release import publish
from kto_release.run import Run

pytestmark = pytest.mark.slow


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
    assert reload["initial"] == record.initial_logprobs
    assert len(record.logprobs) == len(reload["published"]) == 6  # 3 of 15 prompts are held out, with 2 answers each
    assert len(reload["trained"]) == 4
    assert max(abs(value - record.logprobs[row]) for row, value in reload["trained"].items()) < 1e-3
    share = kept(record.logprobs, reload["published"], record.initial_logprobs)
    assert share.value == pytest.approx(1.0, abs=0.05)
    assert 0 < noise(record.logprobs, reload["published"]) < noise(record.logprobs, record.initial_logprobs) / 10
    checks = {c["name"]: c["state"] for c in json.loads((run.release_folder / "checklist.json").read_text())["checks"]}
    assert checks["weights-reloaded"] == checks["training-kept"] == "passed"
