"""`kto-release eval --compare A B [C ...]`: evaluations compared instruction by instruction, and kept to be read.

A folder may be a run, one model's part of it (runs/NAME/eval/initial), or a single judge's folder. A run named twice is
its last iteration against every model before it, or, where it has none, against its reference.
"""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.errors import HubError, RunError
from kto_release.evaluate.compare import earlier, show
from kto_release.evaluate.comparison.finding import find_all, named, reference_of
from kto_release.evaluate.comparison.page import write_page
from kto_release.evaluate.comparison.record import ComparisonRecord, to_record
from kto_release.evaluate.scoring.length_data import LcData, load_lc_data
from kto_release.evaluate.scoring.paired import Comparison, Evaluation, compare, paired, refuse_incomparable
from kto_release.files import write_record
from kto_release.positions import COUNT

LONGEST_NAME = 120
"""Characters of a comparison's folder."""


def compare_runs(
    folders: Sequence[Path],
    *,
    output: Path | None = None,
    lc_data: Path | None = None,
    length_control: bool = True,
    allow_partial: bool = False,
) -> list[Comparison]:
    """Compare the evaluations in these folders, show the results, and write comparison.json and comparison.html.

    They go to `output`, else into the first folder. Raises `RunError` where a folder holds no evaluation or several
    that could be meant, and `ScoreError` where they can't be compared.
    """
    evaluations, where = _chosen(folders)
    twice = len(folders) == 2 and folders[0].resolve() == folders[1].resolve()
    pairs = [*itertools.combinations(evaluations, 2)]
    if twice:
        pairs = [pair for pair in pairs if pair[0] is evaluations[0]]
    for pair in pairs:
        refuse_incomparable(*pair)
        paired(*pair, allow_partial=allow_partial)  # what can't be paired is refused before anything is fetched
    data, absent = _length_data(evaluations[0], lc_data) if length_control else (None, "it was not asked for")
    found = [compare(*pair, lc_data=data, allow_partial=allow_partial, absent=absent) for pair in pairs]
    for comparison in found:
        show(comparison, evaluations[0].record.score)
    record = to_record(evaluations, where, found)
    _show_many(record)
    _write(output or _default(folders[0], evaluations), record, evaluations)
    return found


def _chosen(folders: Sequence[Path]) -> tuple[list[Evaluation], list[Path | None]]:
    """What is compared, with its folders."""
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        if len(resolved) > 2:
            raise RunError("a folder is named twice", expected="each folder once", todo="leave one out")
        first = find_all(folders[:1])[0]
        before = earlier(first[1], folders[0])
        evaluations = named([first, *before])
        where: list[Path | None] = [folder for folder, _ in [first, *before]]
        return (evaluations, where) if before else ([*evaluations, reference_of(evaluations[0])], [*where, None])
    items = find_all(folders)
    return named(items), [folder for folder, _ in items]


def _length_data(first: Evaluation, path: Path | None) -> tuple[LcData | None, str]:
    if not first.record.is_alpaca_eval or first.record.n_total < COUNT:
        return None, "no data for length control was given"
    try:
        return load_lc_data(path), ""
    except HubError as error:
        return None, f"{error.problem}; give --lc-data FILE"


def _show_many(record: ComparisonRecord) -> None:
    """Where several pairs are compared, some differ by chance: which of them hold for all together."""
    if len(record.pairs) < 2:
        return
    held = [pair for pair in record.pairs if pair.win_rate.p_holm < 0.05]
    names = "; ".join(f"{pair.first} is {pair.win_rate.verdict} than {pair.second}" for pair in held)
    console.say(f"of {len(record.pairs)} pairs, these differ at p < 0.05 for all of them together: {names or 'none'}")


def _default(folder: Path, evaluations: Sequence[Evaluation]) -> Path:
    """Where a comparison is kept: with the first run, under the names of what is compared."""
    root = folder / "eval" if (folder / "eval").is_dir() else folder
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(one.name for one in evaluations)).strip(".-")
    return root / "comparisons" / (name[:LONGEST_NAME] or "comparison")


def _write(folder: Path, record: ComparisonRecord, evaluations: Sequence[Evaluation]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = write_page(folder, record, evaluations)
        write_record(folder / "comparison.json", record)
    except OSError as error:
        raise RunError(
            f"the comparison can't be written into {str(folder)!r}: {error.strerror or error}",
            todo="name another folder: --output DIR",
        ) from None
    console.say(f"comparison: {folder / 'comparison.json'}")
    console.say(f"answers side by side: {page}")
