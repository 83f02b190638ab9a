"""The only printing of the project: rich on a terminal, plain lines elsewhere.

Text from models, data or the Hub is never read as markup: everything goes through `Text` or `markup=False`.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
"""Columns where there is no terminal that says how many it has: enough for our tables in a log file."""

# Of many ranks of one training only the first one talks; errors come from all.
out = Console(highlight=False, soft_wrap=True, width=WIDTH, quiet=os.environ.get("RANK", "0") != "0")
err = Console(stderr=True, highlight=False, soft_wrap=True, width=WIDTH)


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a cursor, changes colours or turns the direction of writing round, or has no
spelling in UTF-8; line end and tab are harmless."""


def shown(text: str) -> str:
    """Text from anywhere as a terminal may get it: control characters are spelled, and do nothing."""
    return CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def say(message: str = "", style: str | None = None) -> None:
    """One line of ordinary output."""
    out.print(Text(shown(message), style=style or ""))


def heading(message: str) -> None:
    """The start of a stage."""
    out.print()
    out.print(Text(shown(message), style="bold"))


def warn(message: str) -> None:
    """Something that the user must know, and that does not stop the command."""
    err.print(Text(shown(f"warning: {message}"), style="yellow"))


def fail(message: str) -> None:
    """The one message of a command that stops."""
    err.print(Text("error: ", style="bold red") + Text(shown(message)))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, style: str | None = None) -> None:
    """A table; numbers (and text that looks like one) are aligned right."""
    made = Table(title=Text(shown(title), style="bold"), title_justify="left", style=style or "")
    for position, column in enumerate(columns):
        cells = [str(row[position]) for row in rows]
        numeric = bool(cells) and all(cell[:1].isdigit() or cell[:1] in "-+–" for cell in cells)
        made.add_column(Text(shown(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(shown(str(cell))) for cell in row))
    out.print(made)


@contextmanager
def progress(*extra: ProgressColumn) -> Iterator[Progress]:
    """A progress display: description, bar, done/total, `extra` columns, elapsed and remaining time."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *extra,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=False,
    ) as display:
        yield display


def quiet_libraries() -> None:
    """Only errors of transformers reach the terminal, and no progress bars of it, datasets and huggingface_hub."""
    import datasets
    import huggingface_hub.utils
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()
