"""`kto-release eval` is four commands in one: what each takes, and what does not go together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kto_release.errors import RecipeError

SAMPLE = 100
"""Instructions that each anchor is judged on where the user names no number."""


class Evaluate(NamedTuple):
    """`eval RECIPE`: answer, judge, score."""

    recipe: Path
    model: str | None
    """Null: the last iteration."""
    outputs: Path | None
    """Stored answers to judge instead of a model's."""
    lc_data: Path | None
    length_control: bool
    allow_partial: bool


class ScoreFile(NamedTuple):
    """`eval --annotations FILE --output DIR`: score judgements that exist already."""

    annotations: Path
    output: Path
    judge: str | None
    """Name of a judge that the rows don't name."""
    lc_data: Path | None
    length_control: bool
    allow_partial: bool


class Compare(NamedTuple):
    """`eval --compare RUN_A RUN_B [RUN_C ...]`: evaluations, instruction by instruction."""

    folders: tuple[Path, ...]
    output: Path | None
    lc_data: Path | None
    length_control: bool
    allow_partial: bool


class Calibrate(NamedTuple):
    """`eval RECIPE --calibrate DIR_OF_ANCHORS`: the recipe's judge judges models of known scores."""

    recipe: Path
    anchors: Path
    sample: int
    seed: int


BELONGS = {
    "--output": {"--annotations", "--compare"},
    "--judge": {"--annotations"},
    "--sample": {"--calibrate"},
    "--seed": {"--calibrate"},
    "--model": {"a recipe"},
    "--outputs": {"a recipe"},
    "--calibrate": {"a recipe"},
    "--set": {"a recipe"},
    "--lc-data": {"a recipe", "--annotations", "--compare"},
    "--no-lc": {"a recipe", "--annotations", "--compare"},
    "--allow-partial": {"a recipe", "--annotations", "--compare"},
}
"""By option: what it belongs to. Without one of these it would do nothing."""
APART = [
    ("a recipe", "--annotations", "--compare"),
    ("--model", "--outputs"),
    ("--lc-data", "--no-lc"),
    ("--calibrate", "--model"),
    ("--calibrate", "--outputs"),
    ("--calibrate", "--lc-data"),
    ("--calibrate", "--no-lc"),
    ("--calibrate", "--allow-partial"),
]
"""Of each of these only one can be meant."""


def refuse(given: Mapping[str, object]) -> None:
    """Raise `RecipeError` where options do not go together, or one would do nothing; None and False are not given."""
    named = [name for name, value in given.items() if value is not None and value is not False]
    problems = [f"{' and '.join(found)} at once" for group in APART if len(found := _in(group, named)) > 1]
    strays: dict[str, list[str]] = {}
    for name in named:
        partners = BELONGS.get(name)
        if partners is not None and not partners.intersection(named):
            strays.setdefault(" or ".join(partner for partner in given if partner in partners), []).append(name)
    problems += [f"{' and '.join(names)} without {partner}" for partner, names in strays.items()]
    if "--annotations" in named and "--output" not in named:
        problems.append("--annotations without --output")
    if problems:
        raise RecipeError(
            "\n".join(problems),
            expected="one job for a command, with options that belong to it: kto-release eval --help",
            todo="leave out what is too much, or add what is missing",
        )
    if not _in(("a recipe", "--annotations", "--compare"), named):
        raise RecipeError("nothing to evaluate", expected="a recipe", todo="kto-release eval RECIPE")


def asked(
    *,
    named: Sequence[Path],
    overrides: Sequence[str] | None,
    model: str | None,
    outputs: Path | None,
    annotations: Path | None,
    output: Path | None,
    judge: str | None,
    lc_data: Path | None,
    length_control: bool,
    allow_partial: bool,
    compare: tuple[Path, Path] | None,
    calibrate: Path | None,
    sample: int | None,
    seed: int | None,
) -> Evaluate | ScoreFile | Compare | Calibrate:
    """The one command that the options mean. `named`: a recipe, or with --compare the folders behind the first two.

    Raises `RecipeError` where they do not go together.
    """
    folders = [path for path in named if compare is not None and not _is_recipe(path)]
    recipes = [path for path in named if path not in folders]
    if len(recipes) > 1:
        raise RecipeError(
            f"several recipes at once: {', '.join(map(str, recipes))}", expected="one recipe for a command"
        )
    recipe = recipes[0] if recipes else None
    refuse(
        {
            "a recipe": recipe,
            "--annotations": annotations,
            "--compare": compare,
            "--calibrate": calibrate,
            "--set": overrides,
            "--model": model,
            "--outputs": outputs,
            "--output": output,
            "--judge": judge,
            "--sample": sample,
            "--seed": seed,
            "--lc-data": lc_data,
            "--no-lc": not length_control,
            "--allow-partial": allow_partial,
        }
    )
    if compare is not None:
        return Compare((*compare, *folders), output, lc_data, length_control, allow_partial)
    if annotations is not None and output is not None:
        return ScoreFile(annotations, output, judge, lc_data, length_control, allow_partial)
    assert recipe is not None
    if calibrate is not None:
        return Calibrate(recipe, calibrate, SAMPLE if sample is None else sample, seed or 0)
    return Evaluate(recipe, model, outputs, lc_data, length_control, allow_partial)


def _is_recipe(path: Path) -> bool:
    return path.is_file() or path.suffix in (".yaml", ".yml")


def _in(group: tuple[str, ...], named: list[str]) -> list[str]:
    return [name for name in group if name in named]
