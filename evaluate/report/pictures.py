"""The report's pictures, as SVG text: a few rectangles and lines need no plotting library, and take the page's colours.

Colours come from the page's style sheet by class. Every label is escaped.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from kto_release.records import Interval

WIDTH = 600
LABELS = 172
"""Width of the column with the names of the marks."""
VALUES = 146
"""Width of the column with their values."""
ROW = 30
CHARACTERS = 24
"""Most characters of a name; the rest is in its tooltip."""


class Mark(NamedTuple):
    """A rate with its interval, in percent."""

    label: str
    interval: Interval
    strong: bool = False
    """Whether it is what the report is about."""


def whiskers(marks: Sequence[Mark], describe: str) -> str:
    """A dot with its interval for each mark, and a line at 50% where that is near."""
    low, high = _range(marks)
    left, right, height = LABELS, WIDTH - VALUES, ROW * len(marks) + 34

    def x(value: float) -> float:
        return round(left + (value - low) / (high - low) * (right - left), 1)

    parts = [_line(x(tick), 4, x(tick), height - 28, "grid") for tick in _ticks(low, high)]
    parts += [_text(x(tick), height - 12, f"{tick:g}%", "tick", "middle") for tick in _ticks(low, high)]
    if low <= 50 <= high:
        parts.append(_line(x(50), 4, x(50), height - 28, "even"))
    for number, mark in enumerate(marks):
        y = 4 + ROW * number + ROW / 2
        kind = ("strong" if mark.strong else "mark") + ("" if mark.interval.reliable else " weak")
        parts.append(_name(left - 12, y + 4, mark.label))
        parts.append(_line(x(mark.interval.low), y, x(mark.interval.high), y, kind))
        parts.append(f'<circle cx="{x(mark.interval.value)}" cy="{y}" r="5" class="{kind}"/>')
        parts.append(_text(right + 12, y + 4, _value(mark.interval), "value", "start"))
    return _svg(height, parts, describe)


def length_plot(points: Sequence[tuple[float, float]], bins: Sequence[tuple[float, Interval]], describe: str) -> str:
    """Preference for the model's answer (percent) against how much longer it is than the reference's (characters).

    A faint point for each row, and for each bin of rows (at their median difference) their mean with its interval.
    """
    left, right, top, bottom, height = 48, WIDTH - 12, 10, 250, 296
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
    for tick in _ticks(first, last):
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
    return _svg(height, parts, describe)


def histogram(percents: Sequence[float], describe: str, bars: int = 20) -> str:
    """How many rows have which preference for the model's answer: where the judge is sure, and where it is not."""
    counts = [0] * bars
    for percent in percents:
        counts[min(int(percent / 100 * bars), bars - 1)] += 1
    left, right, top, bottom, height = 52, WIDTH - 12, 24, 190, 236
    tallest, width = max(counts) or 1, (right - left) / bars
    parts = [_line(left, bottom, right, bottom, "grid")]
    for number, count in enumerate(counts):
        tall = (bottom - top) * count / tallest
        kind = "lost" if number < bars // 2 else "won"
        where = (
            f'x="{left + number * width + 1:.1f}" y="{bottom - tall:.1f}" width="{width - 2:.1f}" height="{tall:.1f}"'
        )
        parts.append(f'<rect {where} class="{kind}"><title>{count}</title></rect>')
        if count and (count == tallest or number in (0, bars - 1)):
            parts.append(_text(left + (number + 0.5) * width, bottom - tall - 6, f"{count:,}", "tick", "middle"))
    for tick in (0, 50, 100):
        anchor = {0: "start", 50: "middle", 100: "end"}[tick]
        parts.append(_text(left + tick / 100 * (right - left), bottom + 18, f"{tick}%", "tick", anchor))
    parts.append(
        _text((left + right) / 2, height - 6, "the judge's preference for the model's answer", "tick", "middle")
    )
    return _svg(height, parts, describe)


def _range(marks: Sequence[Mark]) -> tuple[float, float]:
    """A readable range around all intervals, with 50% where it is within 15 points of one."""
    low, high = min(mark.interval.low for mark in marks), max(mark.interval.high for mark in marks)
    if low - 15 <= 50 <= high + 15:
        low, high = min(low, 50), max(high, 50)
    step = 5 if high - low <= 40 else 10
    low, high = max(0, math.floor((low - 1) / step) * step), min(100, math.ceil((high + 1) / step) * step)
    return float(low), float(high)


def _ticks(low: float, high: float) -> Iterator[float]:
    """Round numbers, at most eight, between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) / 8))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield float(number * step)


def _value(interval: Interval) -> str:
    mark = "" if interval.reliable else " †"
    return f"{interval.value:.1f} ({interval.shown()}){mark}"


def _name(x: float, y: float, label: str) -> str:
    short = label if len(label) <= CHARACTERS else label[: CHARACTERS - 1] + "…"
    return f'<text x="{x}" y="{y}" class="name" text-anchor="end">{escape(short)}<title>{escape(label)}</title></text>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _svg(height: float, parts: Sequence[str], describe: str) -> str:
    label = escape(describe, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
