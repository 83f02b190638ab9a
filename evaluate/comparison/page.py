"""comparison.html: the answers of all compared models to each question, side by side, with the words that differ.

It is made like the report: model text is data in it, put on the page as text nodes by the one script that the page's
own security policy allows.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from kto_release import __version__
from kto_release.evaluate.comparison.record import ComparisonRecord
from kto_release.evaluate.report.page import as_data, asset, security_policy
from kto_release.evaluate.scoring.paired import Evaluation
from kto_release.files import write_atomically
from kto_release.judges.rows import Judged
from kto_release.positions import collapsed


def write_page(folder: Path, record: ComparisonRecord, evaluations: Sequence[Evaluation]) -> Path:
    """Write comparison.html into `folder`, and return its path."""
    path = folder / "comparison.html"
    write_atomically(path, render_page(record, evaluations))
    return path


def render_page(record: ComparisonRecord, evaluations: Sequence[Evaluation]) -> str:
    """The text of comparison.html."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # The reference has its own column, also where it was compared with.
    shown = [one for one, facts in zip(evaluations, record.compared, strict=True) if facts.folder is not None]
    style = asset("report.css") + _asset("comparison.css")
    script = asset("markdown.js") + _asset("words.js") + _asset("comparison.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("comparison.html")).render(
        record=record,
        policy=security_policy(style, script),
        # Markup: our own files, and JSON without any "<".
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        data=Markup(as_data({"names": _columns(record), "rows": rows_of(shown)})),  # noqa: S704
        version=__version__,
    )


def _columns(record: ComparisonRecord) -> list[str]:
    """The reference first, under another name where a model has its name too."""
    names = [one.name for one in record.compared if one.folder is not None]
    return [f"{record.reference} (reference)" if record.reference in names else record.reference, *names]


def rows_of(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Every question with the reference's answer and each model's, in the order of the first evaluation."""
    found: dict[tuple[str, int], dict[int, Judged]] = {}
    for place, evaluation in enumerate(evaluations):
        for row in evaluation.rows:
            text = collapsed(row.instruction) if evaluation.record.is_alpaca_eval else row.instruction
            found.setdefault((text, row.sample), {})[place] = row
    return [_row(rows, len(evaluations)) for rows in found.values()]


def _row(rows: dict[int, Judged], count: int) -> dict[str, Any]:
    first = next(iter(rows.values()))
    return {
        "instruction": first.instruction,
        "dataset": first.dataset,
        "sample": first.sample,
        "answers": [
            {"text": first.reference, "preference": None, "failure": None},
            *(
                {"text": row.output, "preference": row.preference, "failure": row.failure}
                if (row := rows.get(place))
                else None
                for place in range(count)
            ),
        ],
    }


def _asset(name: str) -> str:
    return resources.files(__package__ or "kto_release.evaluate.comparison").joinpath(name).read_text(encoding="utf-8")
