"""`kto-release rows RUN`: every row with the log-ratio that it gained, those that moved the wrong way first."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kto_release import console
from kto_release.errors import DataError, KtoReleaseError, RunError
from kto_release.feedback.partitions import find_partitions
from kto_release.feedback.said import Said, said_in
from kto_release.files import write_atomically
from kto_release.models import LocalModel, load_tokenizer
from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train.moved import Moved, moved

SHOWN = 20
EXCERPT = 80
ON_PAGE = 2000
"""Most rows of the page: a browser shows no hundred thousand."""


class Line(NamedTuple):
    """One feedback as it is shown."""

    partition: str
    where: str
    desirable: bool
    gained: float
    """Nats per answer, from the reference of its iteration (held out: from the initial model) to the last model."""
    wrong_way: bool
    tokens: int
    """Of the completion."""
    comment: str | None
    """What the user said."""
    prompt: str
    """As trained, special tokens included."""
    answer: str


def show_rows(folder: Path, *, html: Path | None, out: Path | None, force: bool) -> None:
    """Show the table; `html` gets a page, `out` every row as JSON lines.

    Raises `RunError` where `folder` is no run with a finished iteration, `DataError` where a file is there already.
    """
    for path in (html, out):
        if path is not None and path.exists() and not force:
            raise DataError(f"{str(path)!r} exists", todo="name another file, or add --force to replace it")
    if not (folder / "recipe.yaml").is_file():
        raise RunError(f"{str(folder)!r} is no run directory: it has no recipe.yaml", expected="runs/NAME")
    run = Run(load_recipe(folder / "recipe.yaml"), folder)
    console.quiet_libraries()
    with run.lock():
        parts = moved(run)
    tokenizer = _tokenizer(run)
    said = _said(run, parts)
    order = _order(parts)
    _summary(parts)
    _table([_line(parts, said, tokenizer, place) for place in order[:SHOWN]], len(order))
    if out is not None:
        lines = (_line(parts, said, tokenizer, place) for place in order)
        write_atomically(out, "".join(json.dumps(line._asdict(), ensure_ascii=False) + "\n" for line in lines))
        console.say(f"written: {out}")
    if html is not None:
        on_page = [_line(parts, said, tokenizer, place) for place in order[:ON_PAGE]]
        write_atomically(html, _page(run, parts, on_page, len(order)))
        console.say(f"written: {html}")


def _tokenizer(run: Run) -> Any:
    model = run.iteration_records()[-1].model
    where = LocalModel(run.path / str(model.path), model.name, None, None)
    return load_tokenizer(where, trust_remote_code=run.recipe.model.trust_remote_code)


def _said(run: Run, parts: Sequence[Moved]) -> dict[str, dict[tuple[str, int], Said]]:
    """What the rows say of themselves, by partition; nothing, with a warning, where their files are gone."""
    try:
        found = find_partitions(run.recipe.data).named()
        return {part.name: said_in(found[part.name], run.recipe.data) for part in parts if part.name in found}
    except KtoReleaseError as error:
        console.warn(f"users' comments are not shown, since the feedback can't be read again: {error.problem}")
        return {}


def _order(parts: Sequence[Moved]) -> list[tuple[int, int]]:
    """(partition, feedback) of every feedback, the farthest on the wrong way first."""
    wrong = np.concatenate([part.wrong_way() for part in parts])
    places = [(number, feedback) for number, part in enumerate(parts) for feedback in range(len(part.tokens))]
    return [places[place] for place in np.argsort(-wrong, kind="stable").tolist()]


def _line(
    parts: Sequence[Moved], said: dict[str, dict[tuple[str, int], Said]], tokenizer: Any, place: tuple[int, int]
) -> Line:
    part, number = parts[place[0]], place[1]
    tokens = part.tokens
    own = said.get(part.name, {}).get(tokens.place(number))
    if own is not None and tokens.prompt_digests[tokens.prompt_F[number]].tobytes() not in own.prompts:
        own = None  # the file has changed: another row stands there now
    completion = tokens.completion(number)
    return Line(
        part.name,
        tokens.where(number) if own is None else own.where,
        bool(tokens.desirable_F[number]),
        float(part.gained_F[number]),
        bool(part.wrong_way()[number] > 0),
        len(completion),
        None if own is None else own.comment,
        tokenizer.decode(tokens.prompt(int(tokens.prompt_F[number]))),
        tokenizer.decode(completion),
    )


def _summary(parts: Sequence[Moved]) -> None:
    console.table(
        "Log-ratio gained, in nats per answer",
        ["", "since", "answers", "number", "median", "moved the wrong way"],
        _counts(parts),
    )


def _counts(parts: Sequence[Moved]) -> list[list[object]]:
    rows: list[list[object]] = []
    for part in parts:
        for desirable in (True, False):
            mine = part.tokens.desirable_F == desirable
            if mine.any():
                wrong = int((part.wrong_way()[mine] > 0).sum())
                share = f"{wrong} ({wrong / mine.sum():.0%})"
                label = "desirable" if desirable else "undesirable"
                middle = f"{np.median(part.gained_F[mine]):+.3f}"
                rows.append([part.name, part.against, label, int(mine.sum()), middle, share])
    return rows


def _table(lines: Sequence[Line], count: int) -> None:
    console.table(
        f"The {len(lines)} of {count} rows that moved farthest the wrong way",
        ["row", "", "label", "gained", "tokens", "user's comment", "answer"],
        [
            [
                line.where,
                line.partition,
                _label(line),
                f"{line.gained:+.2f}",
                line.tokens,
                _short(line.comment or ""),
                _short(line.answer),
            ]
            for line in lines
        ],
    )


def _label(line: Line) -> str:
    return "desirable" if line.desirable else "undesirable"


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= EXCERPT else plain[: EXCERPT - 1] + "…"


def _page(run: Run, parts: Sequence[Moved], lines: Sequence[Line], count: int) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    source = (resources.files("kto_release.train") / "rows.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=f"Rows of {run.recipe.name}", counts=_counts(parts), lines=lines, count=count
    )
