"""How a recipe is read: the YAML file, `--set a.b=c` over it, paths made absolute, all problems told at once."""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from kto_release.errors import RecipeError
from kto_release.recipe import LocalJudge, OpenAIJudge, Recipe, RecordedJudge

FILE_SUFFIXES = {".json", ".jsonl", ".parquet", ".gz", ".zst", ".xz", ".jinja", ".bib", ".txt"}


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with `a.b=c` overrides (values are YAML).

    Relative paths in a recipe are relative to the file that names them. Raises `RecipeError` with all problems at once.
    """
    path = Path(path)
    plain = _read_yaml(path)
    for override in overrides:
        _apply(plain, override)
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        raise RecipeError.from_problems(
            str(path), [*_problems(error)], todo="mend these keys; docs/recipe.md describes every one"
        ) from None
    return _with_absolute_paths(recipe, path.resolve().parent)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        found = sorted(str(p) for p in (path.parent if path.parent.is_dir() else Path()).glob("*.yaml"))
        raise RecipeError(
            f"no such recipe: {str(path)!r}",
            expected="a YAML file" + (f", for example one of {', '.join(found)}" if found else ""),
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe {str(path)!r} can't be read: {error}", expected="a YAML file in UTF-8") from None
    try:
        plain = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise RecipeError(
            f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}",
            todo="mend the file at this line; indentation must be spaces, and a colon is followed by a space",
        ) from None
    if not isinstance(plain, dict):
        raise RecipeError(
            f"{path}: holds {type(plain).__name__}, not a recipe", expected="a mapping with name, model, data, …"
        )
    return plain


def _apply(plain: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise RecipeError(f"--set {override!r}: not an override", expected="KEY=VALUE, for example train.beta=0.2")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"--set {override!r}: the value is not valid YAML", todo="quote the value") from None
    *parents, last = key.split(".")
    node = plain
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node = node[parent]
    node[last] = _number(value)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 5e-7 (no dot) as text; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() else value
        except ValueError:
            return value
    return value


def _problems(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        location = [part for part in item["loc"] if part not in ("openai", "local", "recorded")]
        key = ".".join(map(str, location))
        if item["type"] == "extra_forbidden":
            known = _known_keys(item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
            yield f"{key}: unknown key; {hint}"
        elif item["type"] == "missing":
            yield f"{key}: missing"
        elif item["type"].startswith("model_") or item["type"] == "dict_type":
            yield f"{key}: {item['input']!r} is not a section; it holds keys of its own"
        else:
            yield f"{key}: {item['input']!r}: {item['msg'].removeprefix('Value error, ')}"


def _known_keys(location: Sequence[str | int]) -> list[str]:
    section: type[BaseModel] = Recipe
    for part in location:
        if part in section.model_fields:
            candidates = _sections(section.model_fields[str(part)].annotation)
            if not candidates:
                return []
            section = candidates[0]
        else:
            tagged = [
                c
                for c in (OpenAIJudge, LocalJudge, RecordedJudge)
                if part in get_args(c.model_fields["kind"].annotation)
            ]
            section = tagged[0] if tagged else section
    return list(section.model_fields)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Paths that exist beside the recipe become absolute; everything else (Hub ids, splits) stays as it is."""

    def absolute(text: str, *, by_existing: bool = False) -> str:
        is_file = Path(text).suffix in FILE_SUFFIXES or text.startswith(("./", "../"))
        if Path(text).is_absolute() or not (is_file or (by_existing and (folder / text).exists())):
            return text
        # Not resolve(): a glob pattern is no path, and a link's own name is what the user wrote.
        return os.path.normpath(folder / text)

    def source(text: str) -> str:
        return absolute(text, by_existing=True)

    data, evaluation = recipe.data, recipe.eval
    sources = source(data.source) if isinstance(data.source, str) else [source(text) for text in data.source]
    partitions = data.partitions if isinstance(data.partitions, int) else [absolute(text) for text in data.partitions]
    held_out = absolute(data.held_out) if isinstance(data.held_out, str) else data.held_out
    judge = evaluation.judge
    if isinstance(judge, RecordedJudge):
        judge = judge.model_copy(update={"path": absolute(judge.path)})
    elif judge is not None:
        judge = judge.model_copy(update={"prompt": absolute(judge.prompt), "model": absolute(judge.model)})
    release = recipe.release
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(
                update={"base": source(recipe.model.base), "template": absolute(recipe.model.template)}
            ),
            "data": data.model_copy(update={"source": sources, "partitions": partitions, "held_out": held_out}),
            "eval": evaluation.model_copy(
                update={
                    "prompts": absolute(evaluation.prompts),
                    "reference": absolute(evaluation.reference),
                    "judge": judge,
                }
            ),
            "release": release.model_copy(
                update={
                    "citations": [absolute(text) for text in release.citations],
                    "template": absolute(release.template) if release.template else None,
                }
            ),
        }
    )
