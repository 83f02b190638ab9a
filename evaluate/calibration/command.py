"""`kto-release eval RECIPE --calibrate DIR_OF_ANCHORS [--sample N]`: the recipe's judge judges models of known scores.

eval/calibration/<judge>/ judgements.jsonl   one line for each verdict: a killed calibration goes on
                          calibration.json   written last; every later score of the same judge is mapped with it
"""

import re
from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.engines import engines
from kto_release.errors import RecipeError
from kto_release.evaluate.calibration.agreement import calibrate, estimate
from kto_release.evaluate.calibration.anchors import Anchor, draw, load_anchors
from kto_release.evaluate.options import SAMPLE
from kto_release.evaluate.scoring.scores import Scores
from kto_release.files import read_record, write_record
from kto_release.judges import open_judge
from kto_release.judges.asking import Journal, Pair, judge_pairs, refuse_failures
from kto_release.judges.judge import determining
from kto_release.judges.official import OFFICIAL_REFERENCE
from kto_release.records import CalibrationRecord, Interval, JudgeFacts
from kto_release.run import Run


def calibrate_judge(run: Run, anchors_folder: Path, *, sample: int | None = SAMPLE, seed: int = 0) -> CalibrationRecord:
    """Judge a sample of the anchors' stored answers with the recipe's judge, and write what its numbers mean.

    What it will take is shown first. Raises `RecipeError` without a judge, `DataError` for unusable anchors, and
    `JudgeError` where more judgements fail than eval.max_failed allows.
    """
    section = run.recipe.eval.judge
    if section is None:
        raise RecipeError("the recipe names no judge to calibrate", todo="set eval.judge")
    if getattr(section, "batch", None) is not None:
        raise RecipeError("a calibration is not asked in batches", todo="--set eval.judge.batch=null")
    anchors = load_anchors(anchors_folder)
    positions = draw(anchors, sample, seed)
    pairs = [_pair(anchor, number) for anchor in anchors for number in positions]
    with run.lock(), engines(run.recipe.eval.engine, run.path / "eval" / "vllm.log") as pool:
        run.create()
        judge = open_judge(run, section, pool)
        folder = calibration_folder(run.path / "eval", judge.facts)
        _announce(anchors, positions, judge.facts)
        judgements = judge_pairs(judge, pairs, Journal(folder), label="calibration")
        refuse_failures(judgements, run.recipe.eval.max_failed)
        rows = judgements.rows
        size = len(positions)
        judged = {anchor.published.name: rows[n * size : (n + 1) * size] for n, anchor in enumerate(anchors)}
        record = calibrate(anchors, judged, judge.facts, positions, seed=seed, bootstrap=run.recipe.eval.bootstrap)
        write_record(folder / "calibration.json", record)
    show(record)
    console.say(f"calibration: {folder / 'calibration.json'}")
    return record


def calibration_folder(root: Path, judge: JudgeFacts) -> Path:
    """Where the calibration of this very judge is kept, under a run's eval/."""
    digest = sha256_of([determining(judge), judge.swap])
    return root / "calibration" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', judge.name)}-{digest[:8]}"


def read_calibration(root: Path, judge: JudgeFacts) -> CalibrationRecord | None:
    """The calibration of this very judge under a run's eval/, if there is one. Raises `RunError` for a damaged one."""
    return read_record(calibration_folder(root, judge) / "calibration.json", CalibrationRecord)


def estimated(
    calibration: CalibrationRecord | None, scores: Scores, judge: JudgeFacts, reference: str
) -> dict[str, object] | None:
    """The estimate of a result on the official scale, for its record.

    Null without a calibration, for the official judge (its scores are the scale), and where the instructions or the
    reference are not the leaderboard's, or not all instructions are scored.
    """
    fits = scores.is_alpaca_eval and not scores.partial and reference == OFFICIAL_REFERENCE
    if calibration is None or judge.official or not fits:
        return None
    return estimate(calibration, scores.win_rate, scores.standard_error, scores.intervals["win_rate"].n)


def show(record: CalibrationRecord) -> None:
    """The calibration on the console."""
    rows = [
        [
            anchor.name,
            f"{anchor.official_win_rate:.1f}",
            f"{anchor.win_rate.value:.1f}",
            anchor.win_rate.shown(),
            "–" if anchor.agreement is None else f"{anchor.agreement:.0%}",
        ]
        for anchor in record.anchors
    ]
    console.table(
        f"{record.judge.name} against the official judge, on {record.sample} instructions",
        ["anchor", "official win rate %", "by this judge %", "95% interval", "same verdict"],
        rows,
    )
    console.say(f"rank correlation with the official win rates: {_shown(record.rank_correlation)}")
    console.say(f"Cohen's kappa with the official judge: {_shown(record.kappa)}")
    console.say(f"mean absolute difference of preferences: {_shown(record.mean_absolute_difference)}")
    if not record.maps:
        console.say("no map to the official scale: it needs four anchors of different strength", style="yellow")


def _shown(interval: Interval | None) -> str:
    if interval is None:
        return "not measured"
    note = f"; {interval.note}" if interval.note else ""
    return f"{interval.value:.2f} (95%: {interval.shown(digits=2)}{note})"


def _pair(anchor: Anchor, number: int) -> Pair:
    row = anchor.rows[number]
    return Pair(row.instruction, row.dataset or "", 0, row.reference, row.output)


def _announce(anchors: Sequence[Anchor], positions: Sequence[int], judge: JudgeFacts) -> None:
    names = ", ".join(anchor.published.name for anchor in anchors)
    questions = len(anchors) * len(positions) * (2 if judge.swap else 1)
    console.heading(f"Calibrating {judge.name}")
    console.say(
        f"{len(anchors)} anchors ({names}), {len(positions)} instructions each, "
        f"{'both orders' if judge.swap else 'one order'}: {questions} judgements at most"
    )
