"""Finished evaluations: found in folders, read with their judged rows, and their differences in words."""

from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.errors import KtoReleaseError, RunError
from kto_release.evaluate.scoring.intervals import LEVEL
from kto_release.evaluate.scoring.length_data import LcData
from kto_release.evaluate.scoring.paired import (
    RESAMPLES,
    Comparison,
    Difference,
    Evaluation,
    compare,
    setup,
)
from kto_release.files import read_record
from kto_release.judges.rows import read_rows, scored
from kto_release.records import RATES, EvalRecord


def earlier(record: EvalRecord, root: Path) -> list[tuple[Path, EvalRecord]]:
    """The evaluations under `root` of the initial model and the iterations before `record`'s, the earliest first.

    Only those of the same instructions against the same reference by the same judge.
    """
    number = record.iteration or 0
    return [
        (where, other)
        for where, other in sorted(evaluations_in(root), key=lambda item: (item[1].age, item[0]))
        if other.iteration is not None and other.iteration < number and setup(other) == setup(record)
    ]


def against_earlier(mine: Evaluation, root: Path, lc_data: LcData | None) -> list[str]:
    """How an evaluation compares with those of the initial model and the earlier iterations under `root`, in sentences.

    One whose files are damaged is left out with a warning: it must not cost the evaluation at hand.
    """
    found: list[str] = []
    for item in earlier(mine.record, root):
        try:
            found += in_words(compare(mine, load(*item), lc_data=lc_data, allow_partial=True))
        except KtoReleaseError as error:
            console.warn(f"not compared with an earlier model: {error}")
    return found


def in_words(comparison: Comparison) -> list[str]:
    """A sentence for each rate that could be compared."""
    found = []
    for key, name in RATES.items():
        one: Difference | None = getattr(comparison, key)
        if one is not None:
            interval = one.interval
            reasons = [*comparison.verdict.doubts, *([] if interval.reliable else [str(interval.note)])]
            doubt = f"; NOT to be relied on: {'; '.join(reasons)}" if reasons else ""
            verdict = {"better": "better than", "worse": "worse than"}.get(one.verdict, "not distinguishable from")
            found.append(
                f"{comparison.first} is {verdict} {comparison.second}: {name} {interval.value:+.2f} points "
                f"(95%: {interval.shown(digits=2, sign='+')}, p {p_value(one)}{doubt})"
            )
    return found


def load(folder: Path, record: EvalRecord) -> Evaluation:
    """An evaluation with its rows. Raises `RunError` where they don't belong to its record."""
    path = folder / "annotations.json"
    if not path.exists():
        raise RunError(f"{str(folder)!r} holds no annotations.json", todo="evaluate again, or restore the file")
    rows = read_rows(path).rows
    if len(scored(rows)) != record.n_total:
        raise RunError(
            f"{str(path)!r} does not hold the {record.n_total} judgements of results.json",
            todo="evaluate again, or restore the file",
        )
    return Evaluation(record, rows)


def show(comparison: Comparison, score: str) -> None:
    """The comparison on the console."""
    rows: list[Sequence[object]] = []
    for key in RATES:
        found: Difference | None = getattr(comparison, key)
        if found is None:
            rows.append([RATES[key], "none", comparison.no_length_control or "not measured", "–", "–"])
            continue
        interval = found.interval
        mark = "" if interval.reliable else f" (not to be relied on: {interval.note})"
        bounds = f"{interval.shown(digits=2, sign='+')}{mark}"
        shown = p_value(found).removeprefix("= ")
        rows.append([RATES[key], f"{interval.value:+.2f}", bounds, shown, found.verdict])
    console.say(
        f"{comparison.first} against {comparison.second}: {comparison.verdict.in_words(reasons=False)}", style="bold"
    )
    for reason in comparison.verdict.doubts:
        console.say(f"NOT to be relied on: {reason}", style="yellow")
    console.table(
        f"{comparison.first} minus {comparison.second}: {score}",
        ["score", "points", f"{LEVEL:.0%} interval", "p", f"{comparison.first} is"],
        rows,
    )
    console.say(f"paired over {comparison.instructions} instructions")


def p_value(found: Difference) -> str:
    """With its sign: = 0.0123, or < 0.0002 where no resample says otherwise."""
    return f"= {found.p_value:.4f}" if found.p_value >= 2 / RESAMPLES else f"< {2 / RESAMPLES}"


def evaluations_in(folder: Path) -> list[tuple[Path, EvalRecord]]:
    """Every evaluation in a folder or below it, with its own folder."""
    paths = [folder / "results.json"] if (folder / "results.json").exists() else sorted(folder.rglob("results.json"))
    return [(path.parent, record) for path in paths if (record := read_record(path, EvalRecord)) is not None]
