"""The report as one HTML page that needs nothing else: everything from the data is escaped."""

import io
from collections.abc import Sequence
from importlib import resources
from typing import Any

from kto_release.feedback.report.measures import Item
from kto_release.feedback.report.samples import Trained

BINS = 30


def page(
    title: str,
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[object]]]],
    items: list[Item],
    samples: Sequence[Item],
    trained: Sequence[Trained | str] | None,
) -> str:
    """The page: pictures, then the tables, then some rows as they are and, where a recipe says how, as trained."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    source = (resources.files("kto_release.feedback.report") / "page.html.jinja").read_text(encoding="utf-8")
    made_of: Sequence[Trained | str | None] = trained if trained is not None else [None] * len(samples)
    shown = [
        (item, None if made is None or isinstance(made, str) else made, made if isinstance(made, str) else None)
        for item, made in zip(samples, made_of, strict=True)
    ]
    return environment.from_string(source).render(title=title, tables=tables, samples=shown, picture=_lengths(items))


def _lengths(items: list[Item]) -> str:
    """Lengths of the answers by label, as SVG. Its only texts are ours."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "kto-release", "svg.fonttype": "path"}):
        figure = Figure(figsize=(7, 2.6), layout="constrained")
        axes: Any = figure.subplots()
        sides = [
            [len(i.feedback.completion) for i in items if i.feedback.desirable is label] for label in (True, False)
        ]
        axes.hist(sides, bins=BINS, label=["desirable", "undesirable"], color=["#2a7", "#c53"])
        axes.set_xlabel("characters of the answer")
        axes.set_ylabel("rows")
        axes.legend(frameon=False)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    return text[text.index("<svg") :]
