"""Finished evaluations: found in a run, read with their judged rows, and compared with each other.

`kto-release eval --compare RUN_A RUN_B`; a folder may be a run, one model's part of it (runs/NAME/eval/initial), or a
single judge's folder. A run compared with itself is its last iteration against every model before it.
"""

from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.errors import HubError, KtoReleaseError, RunError
from kto_release.evaluate.scoring.intervals import LEVEL
from kto_release.evaluate.scoring.length_data import LcData, load_lc_data
from kto_release.evaluate.scoring.paired import (
    RESAMPLES,
    Comparison,
    Difference,
    Evaluation,
    compare,
    paired,
    refuse_incomparable,
    setup,
)
from kto_release.files import read_record
from kto_release.judges.rows import read_rows, scored
from kto_release.positions import COUNT
from kto_release.records import RATES, EvalRecord


def compare_runs(
    first: Path, second: Path, *, lc_data: Path | None = None, length_control: bool = True, allow_partial: bool = False
) -> Comparison:
    """Compare the evaluations in two folders, and show the result; the last one where there are several.

    Raises `RunError` where a folder holds no evaluation or several that could be meant, and `ScoreError` where the two
    can't be compared.
    """
    one, other = find_pair(first, second)
    before = earlier(one.record, second) if first.resolve() == second.resolve() else []
    others = [load(*item) for item in before] or [other]
    for another in others:
        refuse_incomparable(one, another)
        paired(one, another, allow_partial=allow_partial)  # what can't be paired is refused before anything is fetched
    data, absent = None, "it was not asked for"
    if length_control and one.record.is_alpaca_eval and one.record.n_total >= COUNT:
        try:
            data = load_lc_data(lc_data)
        except HubError as error:
            absent = f"{error.problem}; give --lc-data FILE"
    for another in others:
        comparison = compare(one, another, lc_data=data, allow_partial=allow_partial, absent=absent)
        show(comparison, one.record.score)
    return comparison


def earlier(record: EvalRecord, root: Path) -> list[tuple[Path, EvalRecord]]:
    """The evaluations under `root` of the initial model and the iterations before `record`'s, the earliest first.

    Only those of the same instructions against the same reference by the same judge.
    """
    number = record.iteration or 0
    return [
        (where, other)
        for where, other in sorted(_evaluations(root), key=lambda item: (item[1].age, item[0]))
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


def find_pair(first: Path, second: Path) -> tuple[Evaluation, Evaluation]:
    """The two evaluations that two folders mean: results.json in them, or the one pair of a run that fits.

    Of a run's evaluations those of the last evaluated iteration are meant. Raises `RunError`.
    """
    ones, others = _meant(first), _meant(second)
    fitting = [(one, other) for one in ones for other in others if setup(one[1]) == setup(other[1])]
    if len(ones) == len(others) == 1:
        fitting = [(ones[0], others[0])]
    if len(fitting) != 1:
        listed = "\n".join(f"  - {folder}: {record.score}" for folder, record in [*ones, *others])
        raise RunError(
            f"{'several pairs' if fitting else 'no pair'} of these evaluations can be compared:\n{listed}",
            expected="two folders that mean one evaluation each",
            todo="name the judge's folders: runs/NAME/eval/MODEL/INSTRUCTIONS/JUDGE",
        )
    return load(*fitting[0][0]), load(*fitting[0][1])


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


def _evaluations(folder: Path) -> list[tuple[Path, EvalRecord]]:
    """Every evaluation in a folder or below it, with its own folder."""
    paths = [folder / "results.json"] if (folder / "results.json").exists() else sorted(folder.rglob("results.json"))
    return [(path.parent, record) for path in paths if (record := read_record(path, EvalRecord)) is not None]


def _meant(folder: Path) -> list[tuple[Path, EvalRecord]]:
    """The evaluations that a folder can mean: all of the last iteration in it."""
    if not folder.is_dir():
        raise RunError(f"no such folder: {str(folder)!r}", expected="a run, or an evaluation's folder")
    found = _evaluations(folder)
    if not found:
        raise RunError(
            f"{str(folder)!r} holds no evaluation",
            expected="results.json in it or below",
            todo="kto-release eval first",
        )
    last = max(record.iteration or 0 for _, record in found)
    return [(where, record) for where, record in found if (record.iteration or 0) == last]
