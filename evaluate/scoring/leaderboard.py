"""AlpacaEval 2.0's official leaderboard, as the alpaca_eval package ships it.

Its scores are those of one judge (gpt-4-1106-preview), so only that judge's scores may stand beside them. Thirteen of
its models were published with fewer than 805 judgements; the length-controlled rates of these are wrong by up to 2.8
points, since a missing row gives every later one a wrong difficulty.
"""

import csv
from functools import cache
from typing import NamedTuple

from kto_release import console
from kto_release.judges.official import OFFICIAL_JUDGE, alpaca_eval_folder
from kto_release.records import EvalRecord

LEADERBOARD = f"leaderboards/data_AlpacaEval_2/{OFFICIAL_JUDGE}_leaderboard.csv"
"""In the package's folder."""
NEIGHBOURS = 3
"""Models shown above and below a result."""


class Published(NamedTuple):
    """A model on the leaderboard; rates in percent."""

    name: str
    rank: int
    """By the length-controlled win rate, from 1."""
    win_rate: float
    standard_error: float
    length_controlled_winrate: float
    avg_length: int
    n_total: int


@cache
def leaderboard() -> dict[str, Published]:
    """Every model by its name, in the order of the length-controlled win rate."""
    with (alpaca_eval_folder() / LEADERBOARD).open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: -float(row["length_controlled_winrate"]))
    return {
        row[""]: Published(
            name=row[""],
            rank=rank,
            win_rate=float(row["win_rate"]),
            standard_error=float(row["standard_error"]),
            length_controlled_winrate=float(row["length_controlled_winrate"]),
            avg_length=int(row["avg_length"]),
            n_total=int(row["n_total"]),
        )
        for rank, row in enumerate(rows, 1)
    }


def neighbours(record: EvalRecord) -> list[Published]:
    """The models around a result, by the length-controlled win rate; its own model's published row is among them.

    Empty where the result may not stand there: another judge, other instructions, or not all of them.
    """
    rate = record.length_controlled_winrate
    if not record.judge.official or not record.is_alpaca_eval or record.partial or rate is None:
        return []
    models = list(leaderboard().values())
    above = [model for model in models if model.length_controlled_winrate >= rate]
    below = [model for model in models if model.length_controlled_winrate < rate]
    return above[-NEIGHBOURS:] + below[:NEIGHBOURS]


def show_neighbours(record: EvalRecord) -> None:
    """The part of the leaderboard around a result, on the console; nothing where it may not stand there."""
    around = neighbours(record)
    if not around:
        return
    rows = [
        [str(model.rank), model.name, f"{model.length_controlled_winrate:.2f}", f"{model.win_rate:.2f}"]
        for model in around
    ]
    here = sum(model.length_controlled_winrate >= (record.length_controlled_winrate or 0) for model in around)
    rows.insert(here, ["→", "this result", f"{record.length_controlled_winrate:.2f}", f"{record.win_rate:.2f}"])
    console.table(
        f"around it on the official leaderboard ({len(leaderboard())} models, the same judge)",
        ["rank", "model", "length-controlled %", "win rate %"],
        rows,
    )
