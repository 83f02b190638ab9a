"""report.html: one file that works offline, with the scores as pictures and every judgement to be read.

Model text is data in it: a block of JSON in which no tag can end or begin, put on the page as text by a script whose
hash the page's own security policy names, so that no other script runs.
"""

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from kto_release import __version__
from kto_release.evaluate.report.pictures import Mark, histogram, length_plot, whiskers
from kto_release.evaluate.report.said import said
from kto_release.evaluate.report.summary import variance_in_words
from kto_release.evaluate.scoring.few import rate_interval
from kto_release.evaluate.scoring.intervals import resamples, win_rate_replicates
from kto_release.evaluate.scoring.leaderboard import neighbours
from kto_release.evaluate.scoring.screening import KINDS
from kto_release.files import write_atomically
from kto_release.judges.rows import Judged
from kto_release.records import OWN_LENGTH, OWN_LENGTH_NAME, EvalRecord, Interval

REPORT = "report.html"
SCRIPTS = ("markdown.js", "said.js", "blind.js", "export.js", "report.js")
"""Parts of the page's one script, in order."""
Turns = Sequence[tuple[str, str]]
BINS = 8
BIN_RESAMPLES = 1000
FEWEST = 10
"""Rows below which a bin would show nothing but noise."""


def write_report(
    folder: Path,
    record: EvalRecord,
    rows: Sequence[Judged],
    *,
    earlier: Sequence[EvalRecord] = (),
    compared: Sequence[str] = (),
    prompt: Turns = (),
) -> Path:
    """Write report.html into `folder` and return its path.

    `rows` are all judged rows, the failed ones too. `earlier` are other evaluations of the run: those of the same
    instructions, reference and judge are shown beside this one, all others are left out, since their scores can't be
    compared. `compared` are sentences on the paired differences. `prompt`: role and unfilled text of each turn that the
    judge is sent; empty where that is not known.
    """
    path = folder / REPORT
    write_atomically(path, render_report(record, rows, earlier=earlier, compared=compared, prompt=prompt))
    return path


def render_report(
    record: EvalRecord,
    rows: Sequence[Judged],
    *,
    earlier: Sequence[EvalRecord] = (),
    compared: Sequence[str] = (),
    prompt: Turns = (),
) -> str:
    """The text of report.html."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style, script = asset("report.css"), "".join(map(asset, SCRIPTS))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Markup: our own files, our own pictures (which escape their labels), and JSON without any "<".
    return environment.from_string(asset("report.html")).render(
        record=record,
        who=record.who,
        policy=security_policy(style, script),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        data=Markup(as_data(_plain(record, rows, prompt))),  # noqa: S704
        pictures=[
            (title, note, Markup(wide), Markup(narrow))  # noqa: S704
            for (title, note, wide), (*_, narrow) in zip(
                pictures(record, rows, earlier), pictures(record, rows, earlier, narrow=True), strict=True
            )
        ],
        compared=compared,
        neighbours=neighbours(record),
        facts=facts(record),
        kinds=KINDS,
        version=__version__,
    )


def pictures(
    record: EvalRecord, rows: Sequence[Judged], earlier: Sequence[EvalRecord], *, narrow: bool = False
) -> list[tuple[str, str, str]]:
    """Title, note and SVG of each picture that the record and its rows allow; `narrow`: as a telephone shows it."""
    found = []
    rates = [Mark(rate.name, rate.interval, rate.key == "win_rate") for rate in record.rates() if rate.interval]
    if rates:
        found.append(
            (
                "Score",
                "95% intervals over instructions.",
                whiskers(rates, "score with interval", narrow=narrow),
            )
        )
    same = _models(record, earlier)
    if len(same) > 1:
        note = "Win rates under this judge. Overlapping intervals: compare pairwise, with kto-release eval --compare."
        found.append(
            (
                "Against the other models of this run",
                note,
                whiskers(same, "win rates of the run's models", narrow=narrow),
            )
        )
    if len(record.by_dataset) > 1:
        parts = [Mark(f"{name} ({interval.n})", interval) for name, interval in record.by_dataset.items()]
        found.append(
            (
                "By data set",
                "Win rate within each collection (its size).",
                whiskers(parts, "by data set", narrow=narrow),
            )
        )
    scored = [
        (len(row.output) - len(row.reference), 100 * (row.preference - 1)) for row in rows if row.preference is not None
    ]
    if len(scored) >= FEWEST:
        note = "Each point is an answer; dots are means of bins with their 95% intervals."
        plot = length_plot(scored, length_bins(scored), "preference against length difference", narrow=narrow)
        found.append(("Win rate against length difference", note, plot))
        note = "A judge that is never sure, or always, tells little."
        found.append(
            ("How sure the judge is", note, histogram([percent for _, percent in scored], "preferences", narrow=narrow))
        )
    return found


def _models(record: EvalRecord, earlier: Sequence[EvalRecord]) -> list[Mark]:
    """This model and the run's others on the same scale, in the order of the iterations."""
    same = {one.who: one for one in earlier if one.model is not None and one.scale == record.scale}
    same[record.who] = record
    return [
        Mark(one.who, one.intervals["win_rate"], one is record)
        for one in sorted(same.values(), key=lambda one: one.age)
        if "win_rate" in one.intervals
    ]


def length_bins(points: Sequence[tuple[float, float]]) -> list[tuple[float, Interval]]:
    """Mean preference of bins of about equal size along the length difference, each with its interval."""
    ordered = sorted(points)
    count = max(1, min(BINS, len(ordered) // FEWEST))
    edges = [round(number * len(ordered) / count) for number in range(count + 1)]
    found = []
    for first, last in itertools.pairwise(edges):
        difference, percent = (np.array(part, float) for part in zip(*ordered[first:last], strict=True))
        replicates = win_rate_replicates(percent / 100 + 1, resamples(len(percent), BIN_RESAMPLES, seed=0))
        interval = rate_interval(float(percent.mean()), percent / 100, replicates)
        found.append((float(np.median(difference)), interval))
    return found


def facts(record: EvalRecord) -> list[tuple[str, str]]:
    """What else determines the score, and what the judge was like."""
    made, judge = record.generation, record.judge
    both = "both orders" if judge.swap else "one order"
    found = [
        ("score", record.score),
        ("finished", record.finished),
        ("instructions", f"{record.instructions}, digest {record.instructions_sha256[:16]}…"),
        ("reference", f"{record.reference}, digest {record.reference_sha256[:16]}…"),
        ("judge", f"{judge.model} ({judge.kind}), {both}, prompt {judge.prompt} {judge.prompt_sha256[:16]}…"),
        ("scored", f"{record.n_total:,}; {record.n_missing:,} missing, {record.n_failed:,} failed"),
        ("discrete win rate", _shown(record.discrete_win_rate, "{:.2f}%")),
        (OWN_LENGTH_NAME, _interval(record.intervals.get(OWN_LENGTH))),
        ("standard error of the win rate", _shown(record.standard_error)),
        ("mean length of the answers", _shown(record.avg_length, "{:,} characters")),
        ("preference for the first place", _shown(record.position_bias, "{:+.1%}")),
        ("the same answer favoured in both orders", _shown(record.self_consistency, "{:.1%}")),
        ("probability on the answer letters", _mass(record)),
        ("variance of the win rate", variance_in_words(record.variance)),
    ]
    if made is not None:
        settings = f"temperature {made.temperature:g}, top-p {made.top_p:g}, at most {made.max_tokens:,} tokens"
        found.append(("answers", f"{made.engine} {made.engine_version} in {made.dtype}, {settings}, seed {made.seed}"))
    if record.no_length_control:
        found.append(("no length-controlled rate", record.no_length_control))
    found += [(f"flagged: {KINDS.get(kind, kind)}", f"{count:,}") for kind, count in record.screening.items() if count]
    return found


def _interval(found: Interval | None) -> str:
    doubt = "" if found is None or found.reliable else f", not to be relied on: {found.note}"
    return "not measured" if found is None else f"{found.value:.2f}% (95%: {found.shown(digits=2)}{doubt})"


def _shown(value: float | None, form: str = "{:.3g}") -> str:
    return "not measured" if value is None else form.format(value)


def _mass(record: EvalRecord) -> str:
    if record.answer_mass is None:
        return "not measured"
    return ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in record.answer_mass.items())


def as_data(plain: object) -> str:
    """JSON that can stand in a script element: without "<" no tag can end it."""
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    text = text.encode("utf-8", "replace").decode()  # half an emoji in a judge's words is no text
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(record: EvalRecord, rows: Sequence[Judged], prompt: Turns) -> dict[str, Any]:
    return {
        "prompt": [list(turn) for turn in prompt],
        "model": record.who,
        "reference": record.reference,
        "both": record.judge.swap,
        "kinds": KINDS,
        "rows": [
            {
                "instruction": row.instruction,
                "dataset": row.dataset,
                "output": row.output,
                "reference": row.reference,
                "preference": row.preference,
                "orders": list(row.preferences),
                "mass": row.mass,
                "failure": row.failure,
                "sample": row.sample,
                "flags": list(row.flags),
                "said": [one._asdict() for one in said(row.raw)],
            }
            for row in rows
        ],
    }


def security_policy(style: str, script: str) -> str:
    """What a page may do: its own style and its own script, and nothing else."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def asset(name: str) -> str:
    """A file of this folder."""
    return resources.files(__package__ or "kto_release.evaluate.report").joinpath(name).read_text(encoding="utf-8")
