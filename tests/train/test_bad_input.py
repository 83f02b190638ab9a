"""Bad input to `kto-release train`: one clear error, exit code 1, and nothing half-written."""

import gzip
import json

import pytest
import yaml
from command import run_command
from feedback_files import pair, write_jsonl, write_recipe


@pytest.fixture
def call(monkeypatch, capfd, tmp_path):
    """Run `kto-release train` on a recipe; returns exit code and standard error."""

    def run(recipe, *arguments):
        result = run_command(monkeypatch, capfd, "train", recipe, "--runs", tmp_path / "runs", *arguments)
        return result.code, result.err

    return run


def test_no_such_recipe(call, tmp_path, tiny_model):
    """The recipes that are there are named."""
    write_recipe(tmp_path, tiny_model)
    missing = tmp_path / "recip.yaml"
    assert call(missing) == (
        1,
        f"error: no such recipe: '{missing}'\n  expected: a YAML file, for example one of {tmp_path / 'recipe.yaml'}\n",
    )


def test_yaml_syntax_error(call, tmp_path):
    """The line and column of the fault are named."""
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmodel: {base: [y}\n")
    code, error = call(path)
    assert code == 1
    assert error.startswith(f"error: {path}:2:17: not valid YAML: expected ',' or ']', but got '}}'\n")


def test_all_problems_of_a_recipe_at_once(call, tmp_path, tiny_model):
    """Unknown keys come with the nearest right name, mistyped values with what was expected."""
    path = write_recipe(
        tmp_path, tiny_model, **{"train.bta": 0.2, "train.batch_size": "many", "dta": {}, "model.base": 3}
    )
    assert call(path) == (
        1,
        f"error: {path}: 4 problems\n"
        "  - model.base: 3: Input should be a valid string\n"
        "  - train.batch_size: 'many': Input should be a valid integer, unable to parse string as an integer\n"
        "  - train.bta: unknown key; did you mean 'beta'?\n"
        "  - dta: unknown key; did you mean 'data'?\n"
        "  to do: mend these keys; docs/recipe.md describes every one\n",
    )


def test_rows_that_can_not_be_used(call, tmp_path, tiny_model):
    """Every bad row is named with its number, and no run is left that looks as if it had begun."""
    recipe = write_recipe(tmp_path, tiny_model)
    write_jsonl(
        tmp_path / "data" / "one.jsonl",
        [
            pair(1),
            {"completion": "x", "label": True},
            {**pair(2), "chosen": " "},
            {"prompt": "Hi", "completion": "x", "label": "yes"},
        ],
    )
    assert call(recipe) == (
        1,
        "error: 3 of 4 rows of partition 'one' can't be used:\n"
        "  - one.jsonl, row 2: no prompt\n"
        "  - one.jsonl, row 3: the desirable completion is empty\n"
        "  - one.jsonl, row 4: label is 'yes', not true or false\n"
        "  to do: mend or remove these rows; docs/data.md shows the layouts\n"
        "         say what each value means, for example data.labels: {good: true, bad: false}\n",
    )
    assert not (tmp_path / "runs" / "small" / "iteration-1" / "tokens").exists()
    assert not (tmp_path / "runs" / "small" / "iteration-1" / "plan.json").exists()


def test_a_line_that_is_no_json(call, tmp_path, tiny_model):
    """A broken line is named."""
    recipe = write_recipe(tmp_path, tiny_model)
    (tmp_path / "data" / "one.jsonl").write_text(json.dumps(pair(1)) + '\n{"prompt": "x"\n')
    code, error = call(recipe)
    assert code == 1
    assert error.startswith("error: one.jsonl, row 2: not valid JSON: ")


def test_an_empty_partition(call, tmp_path, tiny_model):
    """A file without rows is an error, not a run of no steps."""
    recipe = write_recipe(tmp_path, tiny_model)
    (tmp_path / "data" / "two.jsonl").write_text("")
    assert call(recipe) == (
        1,
        "error: the partition 'two' is empty: no rows\n"
        "  expected: feedback on at least two prompts\n"
        "  to do: mend data.source or data.partitions\n",
    )


def test_everything_too_long(call, tmp_path, tiny_model):
    """Where max_length drops all feedback, the message says of every partition how many, and what to raise."""
    recipe = write_recipe(tmp_path, tiny_model, **{"train.max_length": 8})
    code, error = call(recipe)
    assert code == 1
    assert error == (
        "error: the partition 'one' is empty: all feedback was dropped (16 prompt too long)\n"
        "the partition 'two' is empty: all feedback was dropped (16 prompt too long)\n"
        "the partition 'held' is empty: all feedback was dropped (8 prompt too long)\n"
        "  expected: feedback on at least two prompts\n"
        "  to do: raise train.max_length\n"
    )


def test_too_long_as_an_error(call, tmp_path, tiny_model):
    """truncate: error names the first row that does not fit."""
    recipe = write_recipe(tmp_path, tiny_model, **{"train.max_length": 40, "train.truncate": "error"})
    code, error = call(recipe)
    assert code == 1
    assert error.startswith("error: one.jsonl, row ")
    assert error.endswith(
        " tokens, more than max_length (40)\n  to do: raise train.max_length, or set train.truncate to drop or cut\n"
    )


def test_a_partition_that_is_no_file(call, tmp_path, tiny_model):
    """The files that are there are named."""
    recipe = write_recipe(tmp_path, tiny_model, **{"data.partitions": ["one", "three"]})
    assert call(recipe) == (
        1,
        "error: no file for the partition 'three'\n"
        "  expected: one of held, one, two\n"
        "  to do: mend data.partitions, data.held_out or data.source\n",
    )


def test_a_folder_that_is_no_model(call, tmp_path, tiny_model):
    """A folder without config.json is refused before anything is read."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert call(write_recipe(tmp_path, empty)) == (
        1,
        f"error: '{empty}' is a folder without a model\n  expected: config.json, *.safetensors and tokenizer files\n",
    )


def test_a_hub_id_without_a_hub(call, tmp_path):
    """One line says that the Hub can't be reached, and what else would do."""
    code, error = call(write_recipe(tmp_path, "no-such/model"))
    assert code == 1
    assert error.startswith(
        "error: 'no-such/model' is no folder here and not in the cache: the connection to http://127.0.0.1:9 failed: "
    )
    assert error.endswith("; or give model.base a local folder\n")


def test_a_run_of_another_recipe(call, tmp_path, tiny_model):
    """Once it has begun, what differs is named with both values; what only changes speed is not held against it."""
    recipe = write_recipe(tmp_path, tiny_model)
    saved = tmp_path / "runs" / "small" / "recipe.yaml"
    saved.parent.mkdir(parents=True)
    from kto_release.recipe_file import load_recipe

    saved.write_text(yaml.safe_dump(load_recipe(recipe).dump()))
    mended = call(recipe, "--dry-run", "--set", "train.beta=0.5")
    assert mended == (0, "")  # nothing was trained there yet
    (saved.parent / "iteration-1").mkdir()
    (saved.parent / "iteration-1" / "plan.json").write_text("{}")
    code, error = call(recipe, "--set", "train.beta=0.5", "--set", "train.tokens_per_pack=128")
    assert code == 1
    assert error == (
        f"error: the run directory '{saved.parent}' belongs to another recipe:\n"
        "  - train.beta: 0.1 there, 0.5 in this recipe\n"
        "  to do: undo these changes, or give the recipe another name\n"
    )


def test_a_folder_that_is_no_run(call, tmp_path, tiny_model):
    """Somebody else's files are left alone."""
    folder = tmp_path / "runs" / "small"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    code, error = call(write_recipe(tmp_path, tiny_model))
    assert code == 1
    assert error.startswith(f"error: '{folder}' holds files, and no recipe.yaml: it is no run directory\n")
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_run_in_use(call, tmp_path, tiny_model):
    """A second process on one run directory is refused."""
    import fcntl

    folder = tmp_path / "runs" / "small"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, error = call(write_recipe(tmp_path, tiny_model))
    assert code == 1
    assert error.startswith(f"error: the run '{folder}' is in use by another process (")


def test_one_prompt_only(call, tmp_path, tiny_model):
    """Where no KL partner can exist, training does not start."""
    recipe = write_recipe(tmp_path, tiny_model)
    write_jsonl(tmp_path / "data" / "one.jsonl", [pair(1)] * 3)
    code, error = call(recipe)
    assert code == 1
    assert error.endswith(
        "error: all 6 rows of feedback share one prompt\n"
        "  expected: at least two prompts: the KL partner of an answer is an answer to another prompt\n"
    )


def test_no_arguments_of_a_command_is_a_usage_error(monkeypatch, capfd):
    """A wrong command line keeps exit code 2 and says what is missing."""
    result = run_command(monkeypatch, capfd, "train")
    assert result.code == 2
    assert "Missing argument 'RECIPE'" in result.err


def test_compressed_feedback_is_read(tmp_path, tiny_model):
    """.jsonl.gz and .jsonl.zst hold the same rows as .jsonl."""
    import zstandard

    from kto_release.feedback.partitions import find_partitions, read
    from kto_release.recipe_file import load_recipe

    recipe = write_recipe(tmp_path, tiny_model)
    data = tmp_path / "data"
    plain = (data / "one.jsonl").read_bytes()
    expected = [
        row.feedback for row in read(find_partitions(load_recipe(recipe).data).iterations[0], load_recipe(recipe).data)
    ]
    for name, packed in (("one.jsonl.gz", gzip.compress(plain)), ("one.jsonl.zst", zstandard.compress(plain))):
        for path in data.glob("one.*"):
            path.unlink()
        (data / name).write_bytes(packed)
        section = load_recipe(recipe).data
        assert [row.feedback for row in read(find_partitions(section).iterations[0], section)] == expected


def test_a_template_that_breaks_its_contract(call, tmp_path, tiny_model):
    """ChatML ends an answer with <|im_end|>, where this model does not stop: refused before anything is tokenized."""
    recipe = write_recipe(tmp_path, tiny_model, **{"model.template": "chatml"})
    for arguments in ((), ("--dry-run",)):
        code, error = call(recipe, *arguments)
        assert code == 1
        assert error.startswith(
            "error: the chat template 'chatml' does not keep its contract with this tokenizer:\n"
            "  - end: one turn: the answer does not end with a token of generation_config.eos_token_id [2]: ["
        )
    assert not (tmp_path / "runs" / "small" / "iteration-1").exists()
