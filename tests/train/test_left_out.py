"""What a training says of rows that it does not use: on the screen, in the record, in a list."""

import json

from command import run_command
from feedback_files import pair, write_jsonl, write_recipe

from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train.inputs import prepare

BAD = {"prompt": "Hi", "completion": "x", "label": "yes"}
CALLED = {
    "prompt": "When?",
    "completion": [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock"}}]}],
    "label": True,
}


def test_skipped_rows_are_counted_and_listed(tiny_model, tmp_path):
    """By reason, what the template can't print too; columns that nothing reads and contradictions are counted."""
    recipe = write_recipe(tmp_path, tiny_model, **{"data.bad_rows": "skip"})
    same = {"prompt": "Who?", "completion": "A dog.", "score": 2}
    rows = [BAD, CALLED, {**same, "label": True}, {**same, "label": False}]
    write_jsonl(tmp_path / "data" / "one.jsonl", [*map(pair, range(8)), *rows])
    facts = prepare(Run.open(load_recipe(recipe), tmp_path / "runs")).facts[0]
    assert facts.skipped == {"label is not true or false": 1, "the template prints no calls of tools": 1}
    assert facts.unused == {"score": 2}
    assert facts.notes == {"an answer is desirable in one row and undesirable in another": 1}
    assert facts.kept.model_dump() == {"desirable": 9, "undesirable": 9}
    listing = tmp_path / "runs" / "small" / "iteration-1" / "tokens" / "left_out.jsonl"
    assert [json.loads(line)["where"] for line in listing.read_text().splitlines()] == [
        "one.jsonl, row 9",
        "one.jsonl, row 10",
    ]


def test_the_dry_run_shows_the_bad_rows_of_every_partition(monkeypatch, capfd, tmp_path, tiny_model):
    """All at once, with exit code 1, as the training itself does; also where the model is not there."""
    recipe = write_recipe(tmp_path, tiny_model)
    for name in ("one", "two"):
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", [*map(pair, range(8)), BAD])
    message = (
        "error: 1 of 9 rows of partition 'one' can't be used:\n"
        "  - one.jsonl, row 9: label is 'yes', not true or false\n"
        "1 of 9 rows of partition 'two' can't be used:\n"
        "  - two.jsonl, row 9: label is 'yes', not true or false\n"
        "  to do: mend or remove these rows; docs/data.md shows the layouts\n"
        "         say what each value means, for example data.labels: {good: true, bad: false}\n"
    )
    no_model = ("--set", "model.base=no-such/model")
    for arguments in (("--dry-run",), ("--dry-run", *no_model), ()):
        result = run_command(monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs", *arguments)
        assert result.code == 1
        assert result.err.endswith(message)


def test_a_late_partition_of_one_prompt_is_found_first(monkeypatch, capfd, tmp_path, tiny_model):
    """Nothing is trained before it is known that everything can be."""
    recipe = write_recipe(tmp_path, tiny_model)
    write_jsonl(tmp_path / "data" / "two.jsonl", [pair(1)] * 3)
    result = run_command(monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs")
    assert (result.code, "share one prompt" in result.err) == (1, True)
    assert not (tmp_path / "runs" / "small" / "iteration-1" / "plan.json").exists()
