"""How a recipe is read: the YAML file, `--set a.b=c` over it, paths made absolute, all problems told at once."""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from kto_release.errors import RecipeError
from kto_release.recipe import Beside, Recipe, Section, sections_of
from kto_release.yaml_text import parse_yaml

FILE_SUFFIXES = {
    ".json",
    ".jsonl",
    ".ndjson",
    ".csv",
    ".tsv",
    ".parquet",
    ".gz",
    ".zst",
    ".xz",
    ".jinja",
    ".bib",
    ".txt",
}
SectionT = TypeVar("SectionT", bound=Section)


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
        plain = parse_yaml(text)
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
        value = parse_yaml(text)
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
    """A line for each key that is wrong; one that fits none of several types is told once."""
    found: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        keys, section = _located(item["loc"])
        key, said = ".".join(map(str, keys)), ""
        if item["type"] == "extra_forbidden":
            known = [*section.model_fields]
            near = difflib.get_close_matches(str(keys[-1]), known, n=1)
            said = (
                f"unknown key; did you mean {near[0]!r}?"
                if near
                else f"unknown key; known here: {', '.join(sorted(known))}"
            )
        elif item["type"] == "missing":
            said = "missing"
        elif item["type"].startswith("model_") or item["type"] == "dict_type":
            said = f"{item['input']!r} is not a section; it holds keys of its own"
        if said:
            found[key, said] = []
        else:
            reasons = found.setdefault((key, repr(item["input"])), [])
            reasons.append(item["msg"].removeprefix("Value error, "))
    for (key, said), reasons in found.items():
        if any(other.startswith(f"{key}.") for other, _ in found):
            continue  # of a union: the member that fits but for a part of it says more
        yield f"{key}: {said}" + (f": {', or: '.join(dict.fromkeys(reasons))}" if reasons else "")


def _located(location: Sequence[str | int]) -> tuple[list[str | int], type[BaseModel]]:
    """The keys of a location, and the section that holds the last of them.

    Between the keys pydantic names the member of a union that it tried: these are left out.
    """
    keys: list[str | int] = []
    section: type[BaseModel] = Recipe
    members: list[type[BaseModel]] = [Recipe]
    plain_dict = False
    for part in location:
        tagged = [member for member in members if len(members) > 1 and part in _kinds(member)]
        if tagged:
            members = tagged
        elif isinstance(part, int) or plain_dict:
            keys.append(part)
        elif members:
            keys.append(part)
            section = members[0]
            field = section.model_fields.get(part)
            members = [*sections_of(field.annotation)] if field else []
            plain_dict = field is not None and _is_dict(field.annotation)
    return keys, section


def _kinds(section: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()


def _is_dict(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_is_dict(part) for part in get_args(annotation))


def _with_absolute_paths(section: SectionT, folder: Path) -> SectionT:
    """The section with the files beside the recipe by their absolute paths, wherever its fields are marked for it."""
    return section.model_copy(
        update={
            name: _placed(getattr(section, name), _mark(field.annotation, field.metadata), folder)
            for name, field in type(section).model_fields.items()
        }
    )


def _mark(annotation: Any, metadata: Sequence[Any] = ()) -> Beside | None:
    """The mark on an annotation, or on a part of it: `list[FileName] | int` is marked."""
    own = [mark for mark in (*metadata, *get_args(annotation)) if isinstance(mark, Beside)]
    return own[0] if own else next((mark for part in get_args(annotation) if (mark := _mark(part))), None)


def _placed(value: Any, mark: Beside | None, folder: Path) -> Any:
    if isinstance(value, Section):
        return _with_absolute_paths(value, folder)
    if isinstance(value, list):
        return [_placed(item, mark, folder) for item in value]
    if not isinstance(value, str) or mark is None or Path(value).is_absolute():
        return value
    if value.startswith("~"):
        return str(Path(value).expanduser())
    is_file = Path(value).suffix.lower() in FILE_SUFFIXES or value.startswith(("./", "../"))
    there = (folder / value).exists()
    read = mark is Beside.READ and ((folder / value).is_file() or ("/" in value and there))
    if is_file or read or (mark is Beside.EXISTING and there):
        # Not resolve(): a glob pattern is no path, and a link's own name is what the user wrote.
        return os.path.normpath(folder / value)
    return value
