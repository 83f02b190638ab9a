"""curves.png: the training of all iterations in one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_release.files import read_jsonl
from kto_release.records import IterationRecord
from kto_release.run import Run

CHOSEN, REJECTED, NEUTRAL, RAW = "#1b7837", "#b2182b", "#2c5f8a", "#9ecae1"

PANELS = (
    ("Loss", "KTO loss", (("loss", "loss", NEUTRAL),)),
    ("Reference point z", "nats", (("kl/raw", "before clamping at 0", RAW), ("kl", "z", NEUTRAL))),
    (
        "Rewards",
        "log π − log π_ref, nats",
        (("rewards/chosen", "desirable", CHOSEN), ("rewards/rejected", "undesirable", REJECTED)),
    ),
    ("Reward margin", "desirable − undesirable, nats", (("rewards/margins", "margin", NEUTRAL),)),
    ("Gradient norm", "before clipping", (("grad_norm", "norm", NEUTRAL),)),
)


def draw(run: Run, records: Sequence[IterationRecord]) -> Path | None:
    """Draw `curves.png` from the metrics and records of the run; None where there are none yet."""
    series = []
    for number in range(1, run.recipe.data.iterations + 1):
        rows = read_jsonl(run.iteration(number) / "metrics.jsonl")
        if rows:
            series.append((number, rows))
    if not series:
        return None
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    ):
        figure, grid = plt.subplots(2, 3, figsize=(13, 6.8), layout="constrained")
        axes = list(grid.flat)
        for axis, (title, unit, lines) in zip(axes, PANELS, strict=False):
            _panel(axis, series, title, unit, lines)
        _probe_panel(axes[5], records)
        figure.suptitle(
            f"{run.recipe.name}: {len(series)} iteration{'s' if len(series) > 1 else ''} of KTO", fontsize=12
        )
        path = run.path / "curves.png"
        part = path.with_suffix(".part.png")
        figure.savefig(part, dpi=130)
        part.replace(path)
        plt.close(figure)
    return path


def _panel(axis: Any, series: Sequence[tuple[int, list[dict[str, Any]]]], title: str, unit: str, lines: Any) -> None:
    offset = 0
    for place, (number, rows) in enumerate(series):
        for name, label, color in lines:
            points = [(offset + row["step"], row[name]) for row in rows if name in row]
            if points:
                marker = "o" if len(points) < 40 else None
                axis.plot(
                    *zip(*points, strict=True),
                    color=color,
                    lw=1.4,
                    marker=marker,
                    ms=2.5,
                    label=None if place else label,
                )
        last = offset + rows[-1]["step"]
        axis.axvspan(offset + 0.5, last + 0.5, color="#000000", alpha=0.035 if number % 2 else 0.0, lw=0)
        middle = (offset + last + 1) / 2
        axis.annotate(
            f"iteration {number}",
            (middle, 1),
            (0, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=7,
            color="#666666",
        )
        offset = last
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlabel("optimizer step, all iterations")
    axis.set_ylabel(unit)
    axis.margins(y=0.18)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlim(0.5, offset + 0.5)
    if len(lines) > 1:
        axis.legend(frameon=False, loc="lower left", fontsize=8)


def _probe_panel(axis: Any, records: Sequence[IterationRecord]) -> None:
    measured = [(record.iteration, record.probe.held_out) for record in records]
    known = next((one for _, one in measured if one), None)
    axis.set_title(f"Held-out {known.name if known else 'feedback'}", loc="left", fontweight="bold")
    axis.set_xlabel("iteration")
    axis.set_ylabel(f"{known.of}, 95% interval" if known else "95% interval")
    axis.axhline(0.5, color="#888888", lw=1, ls="--")
    axis.annotate(
        "chance",
        (1, 0.5),
        (-2, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        fontsize=7,
        color="#666666",
    )
    for number, found in measured:
        if found is None:
            continue
        interval = found.interval
        low, high = interval.value - interval.low, interval.high - interval.value
        axis.errorbar([number], [interval.value], yerr=[[low], [high]], fmt="o", color=NEUTRAL, capsize=4)
        axis.annotate(
            f"{interval.value:.2f}",
            (number, interval.value),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    if known is None:
        axis.text(0.5, 0.75, "not measured", ha="center", transform=axis.transAxes, color="#666666")
    axis.set_ylim(0, 1.08)
    axis.set_xticks([number for number, _ in measured] or [1])
    axis.set_xlim(0.5, (measured[-1][0] if measured else 1) + 0.5)
