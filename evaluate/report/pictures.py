"""The report's pictures, as SVG text: a few rectangles and lines need no plotting library, and take the page's colours.

Colours come from the page's style sheet by class. Every label is escaped.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from kto_release.records import Interval

WIDTH = 600
NARROW = 340
"""Width on a telephone, where the same picture would only be smaller, and its letters too."""
LABELS = 172
"""Width of the column with the names of the marks."""
VALUES = 146
"""Width of the column with their values."""
ROW = 30
NARROW_ROW = 46
"""On a telephone a mark's name and value stand above it."""
CHARACTERS = 24
"""Most characters of a name; the rest is in its tooltip."""


class Mark(NamedTuple):
    """A rate with its interval, in percent."""

    label: str
    interval: Interval
    strong: bool = False
    """Whether it is what the report is about."""


def whiskers(marks: Sequence[Mark], describe: str, *, narrow: bool = False) -> str:
    """A dot with its interval for each mark, and a line at 50% where that is near."""
    low, high = _range(marks)
    row = NARROW_ROW if narrow else ROW
    left, right, height = (
        (20, NARROW - 20, row * len(marks) + 34) if narrow else (LABELS, WIDTH - VALUES, row * len(marks) + 34)
    )

    def x(value: float) -> float:
        return round(left + (value - low) / (high - low) * (right - left), 1)

    parts = [_line(x(tick), 4, x(tick), height - 28, "grid") for tick in _ticks(low, high)]
    parts += [_text(x(tick), height - 12, f"{tick:g}%", "tick", "middle") for tick in _ticks(low, high)]
    if low <= 50 <= high:
        parts.append(_line(x(50), 4, x(50), height - 28, "even"))
    for number, mark in enumerate(marks):
        y = 4 + row * number + (36 if narrow else row / 2)
        kind = ("strong" if mark.strong else "mark") + ("" if mark.interval.reliable else " weak")
        parts += _named(mark, y, right, narrow=narrow)
        parts.append(_line(x(mark.interval.low), y, x(mark.interval.high), y, kind))
        parts.append(f'<circle cx="{x(mark.interval.value)}" cy="{y}" r="5" class="{kind}"/>')
    return _svg(height, parts, describe, NARROW if narrow else WIDTH)


def _named(mark: Mark, y: float, right: float, *, narrow: bool) -> list[str]:
    """A mark's name and value: beside it, or on a telephone above it."""
    if not narrow:
        return [
            _name(LABELS - 12, y + 4, mark.label),
            _text(right + 12, y + 4, _value(mark.interval), "value", "start"),
        ]
    value = _text(NARROW, y - 12, _value(mark.interval), "value", "end")
    return [_name(0, y - 12, mark.label, "start"), value]


def length_plot(
    points: Sequence[tuple[float, float]],
    bins: Sequence[tuple[float, Interval]],
    describe: str,
    *,
    narrow: bool = False,
) -> str:
    """Preference for the model's answer (percent) against how much longer it is than the reference's (characters).

    A faint point for each row, and for each bin of rows (at their median difference) their mean with its interval.
    """
    width = NARROW if narrow else WIDTH
    left, right, top, bottom, height = 48, width - 12, 10, 250, 296
    ordered = sorted(difference for difference, _ in points)
    rare = len(ordered) // 50  # the longest and the shortest fiftieth would leave no room for the others
    first, last = min(ordered[rare], 0.0), max(ordered[-1 - rare], 0.0)
    last = last if last > first else first + 1

    def x(difference: float) -> float:
        inside = min(max(difference, first), last)
        return round(left + (inside - first) / (last - first) * (right - left), 1)

    def y(percent: float) -> float:
        return round(bottom - percent / 100 * (bottom - top), 1)

    parts = [_line(left, y(tick), right, y(tick), "even" if tick == 50 else "grid") for tick in (0, 25, 50, 75, 100)]
    parts += [_text(left - 8, y(tick) + 4, f"{tick}%", "tick", "end") for tick in (0, 50, 100)]
    parts.append(_line(x(0), top, x(0), bottom, "even"))
    for tick in _ticks(first, last, 4 if narrow else 8):
        anchor = "end" if x(tick) > right - 20 else "middle"
        parts.append(_text(x(tick), bottom + 18, f"{tick:+,.0f}" if tick else "0", "tick", anchor))
    parts.append(
        _text((left + right) / 2, height - 6, "characters longer than the reference's answer", "tick", "middle")
    )
    parts += [f'<circle cx="{x(a)}" cy="{y(b)}" r="2" class="point"/>' for a, b in points]
    placed = [(x(difference), interval) for difference, interval in bins]
    path = " ".join(f"{'M' if n == 0 else 'L'}{a} {y(interval.value)}" for n, (a, interval) in enumerate(placed))
    parts.append(f'<path d="{path}" class="trend"/>')
    for a, interval in placed:
        parts.append(_line(a, y(interval.low), a, y(interval.high), "strong"))
        parts.append(
            f'<circle cx="{a}" cy="{y(interval.value)}" r="5" class="strong"><title>{escape(_value(interval))}'
        )
        parts.append(f" of {interval.n}</title></circle>")
    return _svg(height, parts, describe, width)


def histogram(percents: Sequence[float], describe: str, bars: int = 20, *, narrow: bool = False) -> str:
    """How many rows have which preference for the model's answer: where the judge is sure, and where it is not."""
    counts = [0] * bars
    for percent in percents:
        counts[min(int(percent / 100 * bars), bars - 1)] += 1
    full = NARROW if narrow else WIDTH
    left, right, top, bottom, height = (12 if narrow else 52), full - 12, 24, 190, 236
    tallest, width = max(counts) or 1, (right - left) / bars
    parts = [_line(left, bottom, right, bottom, "grid")]
    labelled = -2
    for number, count in enumerate(counts):
        tall = (bottom - top) * count / tallest
        kind = "lost" if number < bars // 2 else "won"
        where = (
            f'x="{left + number * width + 1:.1f}" y="{bottom - tall:.1f}" width="{width - 2:.1f}" height="{tall:.1f}"'
        )
        parts.append(f'<rect {where} class="{kind}"><title>{count}</title></rect>')
        if count and (count == tallest or number in (0, bars - 1)) and number > labelled + 1:
            labelled = number  # one beside it would run into it
            parts.append(_text(left + (number + 0.5) * width, bottom - tall - 6, f"{count:,}", "tick", "middle"))
    for tick in (0, 50, 100):
        anchor = {0: "start", 50: "middle", 100: "end"}[tick]
        parts.append(_text(left + tick / 100 * (right - left), bottom + 18, f"{tick}%", "tick", anchor))
    parts.append(
        _text((left + right) / 2, height - 6, "the judge's preference for the model's answer", "tick", "middle")
    )
    return _svg(height, parts, describe, full)


def _range(marks: Sequence[Mark]) -> tuple[float, float]:
    """A readable range around all intervals, with 50% where it is within 15 points of one."""
    low, high = min(mark.interval.low for mark in marks), max(mark.interval.high for mark in marks)
    if low - 15 <= 50 <= high + 15:
        low, high = min(low, 50), max(high, 50)
    step = 5 if high - low <= 40 else 10
    low, high = max(0, math.floor((low - 1) / step) * step), min(100, math.ceil((high + 1) / step) * step)
    return float(low), float(high)


def _ticks(low: float, high: float, most: int = 8) -> Iterator[float]:
    """Round numbers, about `most` of them, between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield float(number * step)


def _value(interval: Interval) -> str:
    mark = "" if interval.reliable else " †"
    return f"{interval.value:.1f} ({interval.shown()}){mark}"


def _name(x: float, y: float, label: str, anchor: str = "end") -> str:
    short = label if len(label) <= CHARACTERS else label[: CHARACTERS - 1] + "…"
    shown = f"{escape(short)}<title>{escape(label)}</title>"
    return f'<text x="{x}" y="{y}" class="name" text-anchor="{anchor}">{shown}</text>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _svg(height: float, parts: Sequence[str], describe: str, width: int = WIDTH) -> str:
    label = escape(describe, quote=True)
    kind = "narrow" if width == NARROW else "wide"
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )
