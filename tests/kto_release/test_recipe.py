"""The recipe: precedence, checks, and that every one that ships can be read."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from kto_release import recipe as recipe_module
from kto_release import schema
from kto_release.errors import RecipeError
from kto_release.recipe import Section
from kto_release.recipe_file import load_recipe

ROOT = Path(__file__).parents[2]
MINIMAL = {"name": "x", "model": {"base": "org/model"}, "data": {"source": "org/data", "partitions": ["one"]}}


def write(folder, **sections):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **sections}))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_that_ships_can_be_read(path):
    """A recipe in recipes/ has no unknown key and no impossible value."""
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize(
    ("key", "default", "in_file", "on_line", "expected"),
    [
        ("beta", 0.1, 0.2, "0.3", 0.3),
        ("epochs", 1, 2, "3", 3),
        ("truncate", "drop", "cut", "error", "error"),
        ("report_to", [], ["wandb"], "[trackio]", ["trackio"]),
        ("gradient_checkpointing", None, True, "false", False),
        ("learning_rate", 5e-7, 1e-6, "2e-6", 2e-6),
    ],
)
def test_set_over_file_over_default(tmp_path, key, default, in_file, on_line, expected):
    """Each of the three levels, for numbers, texts, lists and booleans; 2e-6 is a number, as people mean it."""
    assert getattr(load_recipe(write(tmp_path)).train, key) == default
    path = write(tmp_path, train={key: in_file})
    assert getattr(load_recipe(path).train, key) == in_file
    assert getattr(load_recipe(path, [f"train.{key}={on_line}"]).train, key) == expected


def test_paths_are_relative_to_the_recipe_and_names_stay(tmp_path):
    """A file beside the recipe is found from anywhere; Hub ids, splits and template names are left alone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "train").mkdir()
    path = write(
        tmp_path,
        model={"base": "org/model", "template": "./mine.jinja"},
        data={"source": "data", "partitions": ["train", "part.jsonl"], "held_out": 0.1},
    )
    loaded = load_recipe(path)
    assert loaded.model.base == "org/model"
    assert loaded.model.template == str(tmp_path / "mine.jinja")
    assert loaded.data.source == str(tmp_path / "data")
    assert loaded.data.partitions == ["train", str(tmp_path / "part.jsonl")]
    assert loaded.data.held_out == 0.1


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model.base", "mine", "{here}/mine"),
        ("model.base", "org/other", "org/other"),
        ("data.source", "[data-*.jsonl, org/data, mine]", ["{here}/data-*.jsonl", "org/data", "{here}/mine"]),
        ("data.held_out", "held.jsonl", "{here}/held.jsonl"),
        ("data.held_out", "test", "test"),
        ("eval.prompts", "questions.json", "{here}/questions.json"),
        ("eval.reference", "../theirs.json", "{above}/theirs.json"),
        ("eval.judge", "{kind: local, model: ./judge, prompt: how.txt}", {"model": "{here}/judge", "prompt": "{here}/how.txt"}),
        ("eval.judge", "{kind: recorded, model: mine, path: a.json.xz}", {"model": "mine", "path": "{here}/a.json.xz"}),
        ("eval.judge", "{kind: openai, model: mine, prompt: /a/how.txt}", {"model": "mine", "prompt": "/a/how.txt"}),
        ("release.template", "new.jinja", "{here}/new.jinja"),
        ("release.citations", "[kto, own.bib]", ["kto", "{here}/own.bib"]),
        ("release.summary", "./not a path", "./not a path"),
    ],
)  # fmt: skip
def test_every_key_that_may_name_a_file_is_relative_to_the_recipe(tmp_path, key, value, expected):
    """Also in lists and in a judge's section; what exists beside the recipe is a file for model and data only."""
    here = tmp_path / "recipes"
    (here / "mine").mkdir(parents=True)

    def filled(plain):
        if isinstance(plain, str):
            return plain.format(here=here, above=tmp_path)
        return [filled(item) for item in plain] if isinstance(plain, list) else {k: filled(v) for k, v in plain.items()}

    loaded = load_recipe(write(here), [f"{key}={value}"]).dump()
    found = loaded[key.split(".")[0]][key.split(".")[1]]
    if isinstance(expected, dict):
        found = {name: found[name] for name in expected}
    assert found == filled(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.beta", "--set 'train.beta': not an override\n  expected: KEY=VALUE, for example train.beta=0.2"),
        ("train.beta=[1", "--set 'train.beta=[1': the value is not valid YAML\n  to do: quote the value"),
    ],
)
def test_an_override_that_is_none(tmp_path, override, message):
    """A --set that can't be read is an error."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path), [override])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"train": {"batch_size": 1}}, "train.batch_size: 1: Input should be greater than or equal to 2"),
        ({"train": {"desirable_weight": 0}}, "train.desirable_weight: 0: desirable_weight must be above 0, or auto"),
        ({"train": {"stop_if": [{"metric": "kl_initial"}]}}, "train.stop_if.0: {'metric': 'kl_initial'}: a stop rule needs exactly one of above and below"),
        ({"data": {"source": "x", "partitions": []}}, "data.partitions: []: partitions must be a non-empty list without repeats, or a number"),
        ({"data": {"source": "x", "partitions": ["a"], "held_out": 0.9}}, "data.held_out: 0.9: a held-out share must be above 0 and at most 0.5"),
        ({"eval": {"judge": {"kind": "openai"}}}, "eval.judge.model: missing"),
        ({"eval": {"judge": {"kind": "local", "model": "x", "swop": True}}}, "eval.judge.swop: unknown key; did you mean 'swap'?"),
        ({"train": {"stop_if": [{"metric": "ended", "below": 0.5, "abov": 1}]}}, "train.stop_if.0.abov: unknown key; did you mean 'above'?"),
        ({"data": {"source": "x", "partitions": 1.5}}, "data.partitions: 1.5: Input should be a valid list, or: Input should be a valid integer, got a number with a fractional part"),
        ({"data": {"source": "x", "partitions": ["a", 3]}}, "data.partitions.1: 3: Input should be a valid string"),
        ({"eval": {"judge": {"kind": "none"}}}, "eval.judge: {'kind': 'none'}: Input tag 'none' found using 'kind' does not match any of the expected tags: 'openai', 'local', 'recorded'"),
        ({"train": 3}, "train: 3 is not a section; it holds keys of its own"),
        ({"name": "../x"}, "name: '../x': String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'"),
    ],
)  # fmt: skip
def test_impossible_values(tmp_path, section, problem):
    """Each is named with its key, its value and what was expected."""
    path = write(tmp_path, **section)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value) == (
        f"{path}: 1 problem\n  - {problem}\n  to do: mend these keys; docs/recipe.md describes every one"
    )


def test_every_field_says_what_it_means():
    """All sections are frozen and strict, and every field has a docstring that becomes its help."""
    for section in vars(recipe_module).values():
        if not (isinstance(section, type) and issubclass(section, Section) and section is not Section):
            continue
        assert section.model_config["frozen"]
        assert section.model_config["extra"] == "forbid"
        for name, field in section.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            assert nested or field.description, f"{section.__name__}.{name}"


def test_reference_and_schema_are_generated_from_the_code():
    """`make docs` was run after the last change of the recipe."""
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == schema.markdown()
    assert (ROOT / "recipes" / "schema.json").read_text(encoding="utf-8") == schema.json_schema()
