"""The recipe's reference, generated from its models: docs/recipe.md, and recipes/schema.json for editors."""

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from kto_release.recipe import Recipe, sections_of

INTRODUCTION = """# The recipe, key by key

Generated from `kto_release/recipe.py` by `make docs`; a test compares them.

A recipe is a YAML file. `--set a.b=c` on the command line wins over the file, the file over the default. Unknown keys
are errors, and all problems are reported at once. Relative paths are relative to the recipe. For completion in an
editor, put `# yaml-language-server: $schema=schema.json` (with the path of `recipes/schema.json`) at a recipe's top.
"""


def json_schema() -> str:
    """The JSON schema of a recipe, for editors."""
    return json.dumps(Recipe.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def markdown() -> str:
    """docs/recipe.md."""
    return "\n".join([INTRODUCTION, *_section(Recipe, "")]) + "\n"


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    title = f"`{prefix}`" if prefix else "Top level"
    yield f"## {title}"
    yield ""
    yield (model.__doc__ or "").strip()
    yield ""
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    below: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        nested = [*sections_of(field.annotation)]
        below += [(found, key if len(nested) == 1 else f"{key} ({_kind(found)})") for found in nested]
        default = _default(field.default) if not nested else ("required" if field.is_required() else "")
        meaning = " ".join((field.description or "").split()) or (nested[0].__doc__ or "").splitlines()[0]
        yield f"| `{key}` | {_type(field.annotation)} | {default} | {meaning.replace('|', chr(92) + '|')} |"
    yield ""
    for found, key in below:
        yield from _section(found, key)


def _kind(model: type[BaseModel]) -> str:
    return f"kind: {get_args(model.model_fields['kind'].annotation)[0]}"


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(annotation: Any) -> str:
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "NoneType": "null"}
    parts = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if getattr(annotation, "__origin__", None) is list:
        return f"list of {_type(parts[0])}"
    if getattr(annotation, "__origin__", None) is dict:
        return "mapping"
    if "Literal" in str(getattr(annotation, "__origin__", "")):
        return ", ".join(f"`{json.dumps(part)}`" for part in parts)
    if hasattr(annotation, "__metadata__"):
        return _type(parts[0])
    if parts:
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    return names.get(getattr(annotation, "__name__", ""), str(annotation))
