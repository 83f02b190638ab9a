"""`kto-release rows`: what each row gained, made again from the models that a run left, and what users said of it."""

import json

import numpy as np
import pytest
import torch
from command import run_command
from feedback_files import pair, write_jsonl, write_recipe
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two iterations; each row of the first has an id and a comment, the last of them one that could be markup."""
    folder = tmp_path_factory.mktemp("rows")
    model = make_tiny_model(folder / "model", dtype="float32")
    (folder / "data").mkdir()
    rows = [{**pair(number), "name": f"pg:{number}", "note": f"said {number}"} for number in range(8)]
    rows[7]["note"] = "<script>alert(1)</script>"
    write_jsonl(folder / "data" / "one.jsonl", rows)
    recipe = write_recipe(folder, model, **{"data.columns": {"id": "name", "comment": "note"}})
    made = Run.open(load_recipe(recipe), folder / "runs")
    train(made)
    return made


@torch.no_grad()
def logp(folder, line):
    """log pi of an answer as it was trained, by the model's own logits."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, answer = (tokenizer(text, add_special_tokens=False).input_ids for text in (line["prompt"], line["answer"]))
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return float(logits[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None]).sum())


def lines_of(run, monkeypatch, capfd, tmp_path, *more):
    out = tmp_path / "rows.jsonl"
    result = run_command(monkeypatch, capfd, "rows", run.path, "--out", out, *more)
    assert result.code == 0, result.err
    return result, [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_each_row_gained_what_the_models_say(run, monkeypatch, capfd, tmp_path):
    """log pi of the last model less that of the iteration's own reference, or, held out, of the initial model."""
    _, lines = lines_of(run, monkeypatch, capfd, tmp_path)
    assert len(lines) == 40
    before = {
        "iteration 1": run.recipe.model.base,
        "iteration 2": run.iteration(1) / "model",
        "held out": run.recipe.model.base,
    }
    for name, model in before.items():
        line = next(line for line in lines if line["partition"] == name)
        expected = logp(run.iteration(2) / "model", line) - logp(model, line)
        assert line["gained"] == pytest.approx(expected, abs=2e-4)


def test_the_wrong_way_comes_first(run, monkeypatch, capfd, tmp_path):
    """Sorted by the gain against the label; who moved the wrong way is marked, and the table begins with it."""
    result, lines = lines_of(run, monkeypatch, capfd, tmp_path)
    wrong = [-line["gained"] if line["desirable"] else line["gained"] for line in lines]
    assert wrong == sorted(wrong, reverse=True)
    assert [line["wrong_way"] for line in lines] == [way > 0 for way in wrong]
    assert "of 40 rows" in result.out


def test_rows_have_their_names_and_comments(run, monkeypatch, capfd, tmp_path):
    """By data.columns; on the page what users wrote is text."""
    page = tmp_path / "rows.html"
    _, lines = lines_of(run, monkeypatch, capfd, tmp_path, "--html", page)
    found = {line["where"]: line["comment"] for line in lines if line["partition"] == "iteration 1"}
    assert found["one.jsonl, id 'pg:3'"] == "said 3"
    assert {line["comment"] for line in lines if line["partition"] != "iteration 1"} == {None}
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text


def test_a_second_call_computes_nothing(run, monkeypatch, capfd, tmp_path):
    """What was computed is kept: the same numbers without the model's weights."""
    _, first = lines_of(run, monkeypatch, capfd, tmp_path)
    (run.iteration(2) / "model" / "model.safetensors").rename(tmp_path / "away")
    try:
        _, second = lines_of(run, monkeypatch, capfd, tmp_path, "--force")
    finally:
        (tmp_path / "away").rename(run.iteration(2) / "model" / "model.safetensors")
    assert first == second


def test_comments_of_rows_that_changed_are_not_shown(run, monkeypatch, capfd, tmp_path):
    """The file has other prompts now: rows keep their numbers, and nobody's comment is shown beside them."""
    path = run.path.parent.parent / "data" / "one.jsonl"
    before = path.read_text(encoding="utf-8")
    other = [{**pair(number), "name": f"pg:{number}", "note": "of another"} for number in range(30, 38)]
    write_jsonl(path, other)
    try:
        _, lines = lines_of(run, monkeypatch, capfd, tmp_path)
    finally:
        path.write_text(before, encoding="utf-8")
    assert {line["comment"] for line in lines} == {None}
    assert "one.jsonl, row 4" in {line["where"] for line in lines}


def test_feedback_that_is_gone_takes_only_comments_away(run, monkeypatch, capfd, tmp_path):
    """The gains need tokens and references, which the run holds."""
    path = run.path.parent.parent / "data"
    path.rename(path.with_name("moved"))
    try:
        result, lines = lines_of(run, monkeypatch, capfd, tmp_path)
    finally:
        path.with_name("moved").rename(path)
    assert "users' comments are not shown" in result.err
    assert np.isfinite([line["gained"] for line in lines]).all()


def test_what_is_no_run(monkeypatch, capfd, tmp_path):
    """One sentence each."""
    result = run_command(monkeypatch, capfd, "rows", tmp_path)
    assert (result.code, "is no run directory: it has no recipe.yaml" in result.err) == (1, True)


def test_a_missing_reference_is_named(run, monkeypatch, capfd, tmp_path):
    """Nothing is guessed where the stored reference is gone."""
    folder = run.iteration(1) / "reference"
    folder.rename(tmp_path / "reference")
    try:
        result = run_command(monkeypatch, capfd, "rows", run.path)
    finally:
        (tmp_path / "reference").rename(folder)
    assert result.code == 1
    assert "the reference log-probabilities of iteration 1 are gone" in result.err
