"""A run whose inputs or models changed is refused, and told what changed."""

import json
import shutil

import pytest
from feedback_files import write_recipe
from safetensors.torch import load_file, save_file

from kto_release.digests import weights_digest
from kto_release.errors import RunError
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train

pytestmark = pytest.mark.slow

CHANGES = {"train.probe_prompts": 0}


@pytest.fixture(scope="module")
def places(tmp_path_factory, tiny_model):
    """A run of two iterations of which the second has only begun; and a copy of it, since a run stays where it is."""
    folder = tmp_path_factory.mktemp("before") / "run"
    folder.mkdir()
    train(opened(folder, tiny_model))
    second = folder / "runs" / "small" / "iteration-2"
    shutil.rmtree(second / "model")
    (second / "record.json").unlink()
    return folder, shutil.copytree(folder, folder.with_name("kept"))


@pytest.fixture
def folder(places):
    """The run as it was, whatever the test before did to it."""
    place, kept = places
    shutil.rmtree(place)
    return shutil.copytree(kept, place)


def opened(folder, model):
    return Run.open(load_recipe(write_recipe(folder, model, **CHANGES)), folder / "runs")


def refusal(folder, model):
    with pytest.raises(RunError) as caught:
        train(opened(folder, model))
    return caught.value


def test_feedback_that_changed(folder, tiny_model):
    """The file of a finished iteration has one row more: the iteration and the file are named."""
    with (folder / "data" / "one.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "More?", "chosen": "Yes.", "rejected": "No."}) + "\n")
    said = refusal(folder, tiny_model)
    assert said.problem == "the feedback of iteration 1 changed since it began: one.jsonl"
    assert said.todo == "restore it, or give the recipe another name and start afresh"


def test_inputs_that_changed(folder, tiny_model):
    """The plan of the iteration that goes on says other things than it did: each, then and now."""
    place = folder / "runs" / "small" / "iteration-2"
    plan = json.loads((place / "plan.json").read_text())
    steps = plan["steps"]
    (place / "plan.json").write_text(json.dumps(plan | {"steps": 99, "precision": "bf16"}))
    said = refusal(folder, tiny_model)
    assert said.problem == (
        f"iteration 2 began with other inputs:\n  - steps: 99 then, {steps} now\n  - precision: 'bf16' then, 'fp32' now"
    )
    assert said.todo == f"restore them, or remove {str(place)!r} to start the iteration again"


def change_weights(model):
    path = model / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"] * 3
    save_file(weights, path, metadata={"format": "pt"})


def test_weights_that_changed(folder, tiny_model):
    """The model that the next iteration starts from is not the one that its record speaks of."""
    place = folder / "runs" / "small" / "iteration-1"
    change_weights(place / "model")
    said = refusal(folder, tiny_model)
    assert said.problem == "the weights of iteration 1 are not those of its record"
    assert said.todo == f"remove {str(place)!r} to train that iteration again"


def test_log_probabilities_that_changed(folder, tiny_model):
    """The weights are those of the record, and give other log-probabilities than it says: the row and both numbers."""
    place = folder / "runs" / "small" / "iteration-1"
    record = json.loads((place / "record.json").read_text())
    assert record["model"]["sha256"] == weights_digest(place / "model")
    digest, value = next(iter(record["logprobs"].items()))
    record["logprobs"][digest] = value - 1
    (place / "record.json").write_text(json.dumps(record))
    said = refusal(folder, tiny_model)
    start, _, end = said.problem.partition(" gives log-probability ")
    number, _, row = end.partition(" for row ")
    assert (start, row) == ("the model of iteration 1", digest)
    assert float(number) == pytest.approx(value, abs=1e-3)
    assert said.expected == f"{value - 1}, as recorded when it was saved"
    assert said.todo == "check this machine's libraries; the recorded versions are in record.json"
