"""Finished evaluations: found in a run, read with their judged rows, and compared with each other.

`kto-release eval --compare RUN_A RUN_B`; a folder may be a run, one model's part of it (runs/NAME/eval/initial), or a
single judge's folder.
"""

from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.errors import HubError, RunError
from kto_release.evaluate.annotations import read_annotations
from kto_release.evaluate.comparison import (
    RESAMPLES,
    Comparison,
    Difference,
    Evaluation,
    compare,
    paired,
    refuse_incomparable,
    setup,
)
from kto_release.evaluate.lc_data import LcData, fetch_lc_data, read_lc_data
from kto_release.evaluate.results import RATES
from kto_release.evaluate.uncertainty import LEVEL
from kto_release.positions import COUNT
from kto_release.records import EvalRecord
from kto_release.run import read_record


def compare_runs(
    first: Path, second: Path, *, lc_data: Path | None = None, length_control: bool = True, allow_partial: bool = False
) -> Comparison:
    """Compare the evaluations in two folders, and show the result.

    Raises `RunError` where a folder holds no evaluation or several that could be meant, and `ScoreError` where the two
    can't be compared.
    """
    one, other = find_pair(first, second)
    refuse_incomparable(one, other)
    pairs = paired(one, other, allow_partial=allow_partial)
    data, absent = None, "it was not asked for"
    if length_control and one.record.is_alpaca_eval and len(pairs) == COUNT:
        try:
            data = read_lc_data(lc_data) if lc_data else fetch_lc_data()
        except HubError as error:
            absent = f"{error.problem}; give --lc-data FILE"
    comparison = compare(one, other, lc_data=data, allow_partial=allow_partial, absent=absent)
    show(comparison, one.record.score)
    return comparison


def compare_with_earlier(folder: Path, root: Path, lc_data: LcData | None) -> list[Comparison]:
    """The evaluation in `folder` against those of the initial model and the earlier iterations under `root`.

    Only evaluations of the same instructions against the same reference by the same judge take part, the earliest
    first.
    """
    record = read_record(folder / "results.json", EvalRecord)
    if record is None:
        raise RunError(f"{str(folder)!r} holds no evaluation", expected="results.json")
    found = [(iteration(other), where, other) for where, other in _evaluations(root)]
    earlier = [
        (where, other)
        for number, where, other in sorted(found, key=lambda item: item[:2])
        if number is not None and number < (iteration(record) or 0) and setup(other) == setup(record)
    ]
    mine = load(folder, record)
    return [compare(mine, load(*item), lc_data=lc_data, allow_partial=True) for item in earlier]


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
    rows = read_annotations(path).rows
    if sum(row.preference is not None for row in rows) != record.n_total:
        raise RunError(
            f"{str(path)!r} does not hold the {record.n_total} judgements of results.json",
            todo="evaluate again, or restore the file",
        )
    return Evaluation(folder.name, record, rows)


def iteration(record: EvalRecord) -> int | None:
    """0 for the initial model, N for iteration-N; null for any other model."""
    name = record.model.name if record.model else ""
    number = name.removeprefix("iteration-")
    return 0 if name == "initial" else int(number) if number != name and number.isdigit() else None


def show(comparison: Comparison, score: str) -> None:
    """The comparison on the console."""
    rows: list[Sequence[object]] = []
    for key in RATES:
        found: Difference | None = getattr(comparison, key)
        if found is None:
            rows.append([RATES[key], "none", comparison.no_length_control or "not measured", "–", "–"])
            continue
        low, high = f"{found.interval.low:+.2f}", f"{found.interval.high:+.2f}"
        mark = "" if found.interval.reliable else f" (not to be relied on: {found.interval.note})"
        p_value = f"{found.p_value:.4f}" if found.p_value >= 2 / RESAMPLES else f"< {2 / RESAMPLES}"
        rows.append([RATES[key], f"{found.interval.value:+.2f}", f"{low} to {high}{mark}", p_value, found.verdict])
    console.table(
        f"{comparison.first} minus {comparison.second}: {score}",
        ["score", "points", f"{LEVEL:.0%} interval", "p", f"{comparison.first} is"],
        rows,
    )
    console.say(f"paired over {comparison.instructions} instructions")


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
    last = max(iteration(record) or 0 for _, record in found)
    return [(where, record) for where, record in found if (iteration(record) or 0) == last]
