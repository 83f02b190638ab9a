"""`kto-release feedback`: what is in feedback, before anything is trained on it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kto_release import console
from kto_release.errors import DataError, RecipeError
from kto_release.feedback.left_out import LeftOut
from kto_release.feedback.partitions import HELD_OUT, Partition, find_partitions
from kto_release.feedback.report.described import described, items_of, key_of
from kto_release.feedback.report.likeness import EXTRA, languages, near_duplicates
from kto_release.feedback.report.measures import (
    Item,
    overlap,
    predictors,
    private,
    question,
    repeats,
    system_prompts,
    turns,
)
from kto_release.feedback.report.page import page
from kto_release.feedback.report.samples import as_trained, some_of
from kto_release.files import write_atomically, write_record
from kto_release.positions import hashes, instruction_hash
from kto_release.recipe import DataSection, Recipe
from kto_release.recipe_file import load_recipe
from kto_release.records import FEEDBACK
from kto_release.run import Run

Table = tuple[str, Sequence[str], list[Sequence[object]]]
SHOWN = 10


def report(words: list[Path], overrides: list[str], html: Path | None, *, runs: Path, force: bool) -> None:
    """Show the tables of a recipe's feedback, or of files; `html` gets them as a page.

    A recipe's report is recorded in its run's directory too, for the card. Raises `DataError` with every row that can't
    be used.
    """
    if html is not None and html.exists() and not force:
        raise DataError(f"{str(html)!r} exists", todo="name another file, or add --force to replace it")
    recipe = _recipe(words, overrides)
    data = recipe.data if recipe else DataSection(source=[str(path) for path in words], partitions=1)
    partitions = find_partitions(data).named()
    items = _items(data, partitions)
    if not items:
        raise DataError("no feedback in it")
    tables = tables_of(items)
    for heading, columns, rows in tables:
        console.table(heading, columns, rows)
    samples = some_of(items)
    trained = as_trained(recipe.model, samples) if recipe else None
    if html is not None:
        title = "Feedback of " + ", ".join(path.name for path in words)
        write_atomically(html, page(title, tables, items, samples, trained))
        console.say(f"written: {html}")
    if recipe is not None:
        run = Run.open(recipe, runs)
        with run.lock():
            run.create()
            write_record(run.path / FEEDBACK, described(items, key_of(partitions, data)))
        console.say(f"recorded: {run.path / FEEDBACK}")


def _recipe(words: list[Path], overrides: list[str]) -> Recipe | None:
    """The recipe, where one is named, and not files."""
    if len(words) == 1 and words[0].suffix in (".yaml", ".yml"):
        return load_recipe(words[0], overrides)
    if overrides:
        raise RecipeError("--set without a recipe", todo="name a recipe, or leave it out")
    return None


def _items(data: DataSection, partitions: Mapping[str, Partition]) -> list[Item]:
    """All feedback. Raises one `DataError` with the rows of every partition that can't be used."""
    left_out = {name: LeftOut() for name in partitions}
    items = [
        item for name, part in partitions.items() for item in items_of(name, part, data, left_out[name], most=None)
    ]
    errors = []
    for name, problems in left_out.items():
        try:
            if data.bad_rows == "error":
                problems.refuse(name)
        except DataError as error:
            errors.append(error)
        for reason, count in problems.reasons().items():
            console.warn(f"{name}: {count} rows left out: {reason}")
    if errors:
        raise DataError.together(errors)
    return items


def tables_of(items: list[Item]) -> list[Table]:
    """Everything that is shown, as (heading, columns, rows)."""
    tables: list[Table] = [
        ("Rows", ["partition", "desirable", "undesirable", "prompts"], _counts(items)),
        ("Lengths and turns", ["", "median", "95%", "longest"], _lengths(items)),
        ("What tells the label besides quality", ["", "AUC", "desirable", "undesirable"], _told(items)),
        ("Worth a look", ["", "number"], _look(items)),
    ]
    for heading, found in (
        ("System prompts", system_prompts(items)),
        ("Languages of the answers", Counter(languages(items) or {})),
        ("Models", Counter(item.model for item in items if item.model)),
    ):
        if set(found) - {""}:
            rows: list[Sequence[object]] = [(count, name[:200] or "(none)") for name, count in found.most_common(SHOWN)]
            tables.append((f"{heading}: {len(found)}", ["rows", ""], rows))
    return tables


def _counts(items: list[Item]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for name in dict.fromkeys(item.partition for item in items):
        inside = [item.feedback for item in items if item.partition == name]
        liked = sum(feedback.desirable for feedback in inside)
        rows.append((name, liked, len(inside) - liked, len({feedback.prompt for feedback in inside})))
    return rows


def _lengths(items: list[Item]) -> list[Sequence[object]]:
    sides: dict[str, list[int]] = {
        "characters of desirable answers": [len(i.feedback.completion) for i in items if i.feedback.desirable],
        "characters of undesirable answers": [len(i.feedback.completion) for i in items if not i.feedback.desirable],
        "characters of prompts": [sum(len(turn[1]) for turn in i.feedback.prompt) for i in items],
        "questions in a conversation": [turns(i.feedback) for i in items],
    }
    return [
        (name, f"{np.median(values):.0f}", f"{np.percentile(values, 95):.0f}", max(values))
        for name, values in sides.items()
        if values
    ]


def _told(items: list[Item]) -> list[Sequence[object]]:
    return [
        (
            p.name,
            "not measured: fewer than 30 of a label" if p.auc is None else f"{p.auc:.2f}",
            p.desirable,
            p.undesirable,
        )
        for p in predictors(items)
    ]


def _look(items: list[Item]) -> list[Sequence[object]]:
    found = repeats(items)
    rows: list[Sequence[object]] = [
        ("rows that repeat another one", found.twice),
        ("rows that do so but for case, punctuation and spaces", found.nearly),
        ("answers that are like an earlier, different one", _or_how(near_duplicates(items))),
        ("answers that are desirable in one row and undesirable in another", len(found.both)),
    ]
    rows += [(f"  {one} and {other}", "") for one, other in found.both[:SHOWN]]
    rows += [(f"rows with {kind}", count) for kind, count in private(items).items()]
    held = frozenset(instruction_hash(question(i.feedback)) for i in items if i.partition == HELD_OUT)
    trained = [item for item in items if item.partition != HELD_OUT]
    if held:
        rows.append(("rows to train on whose last question is held out too", overlap(trained, held)))
    rows.append(("rows whose last question is AlpacaEval's", overlap(trained, frozenset(hashes()))))
    users = Counter(item.user for item in items if item.user)
    if users:
        biggest = users.most_common(1)[0][1]
        rows.append((f"share of the largest of {len(users)} users", f"{100 * biggest / users.total():.0f}%"))
    return rows


def _or_how(count: int | None) -> object:
    return f"not looked at: {EXTRA}" if count is None else count
