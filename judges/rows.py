"""What evaluation passes around: one judged pair of answers, and the scores of a whole set.

A judged row never turns a failure into a number: its preference is null, and so it is counted and not scored.
"""

from collections.abc import Sequence
from typing import NamedTuple

from kto_release.records import Interval


class Judged(NamedTuple):
    """One answer of the evaluated model, compared with the reference's answer to the same instruction."""

    instruction: str
    dataset: str | None
    """The collection that the instruction belongs to, for example helpful_base."""
    output: str
    """The evaluated model's answer."""
    reference: str
    """What it is compared with."""
    preference: float | None
    """In [1, 2]: 2 is a win of the model's answer, 1.5 a draw; null: the judgement failed, and is never scored."""
    preferences: tuple[float | None, ...] = ()
    """The same per order asked: the reference shown first, then the model shown first. Empty: the order is unknown."""
    mass: float | None = None
    """Probability mass on the answer letters, mean of the orders; null where it was not measured."""
    failure: str | None = None
    """Why there is no preference."""
    sample: int = 0
    """Which of the answers to this instruction, from 0."""


class Scores(NamedTuple):
    """The scores of one set of judged rows, named and defined as in alpaca_eval; rates in percent."""

    win_rate: float
    standard_error: float | None
    """Standard error of win_rate over instructions; null with a single one."""
    discrete_win_rate: float
    length_controlled_winrate: float | None
    no_length_control: str | None
    """Why there is no length-controlled rate; null where there is one."""
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    """Judgements that are scored."""
    n_missing: int
    """Instructions without a judgement."""
    n_failed: int
    """Judgements that were tried and failed."""
    avg_length: int
    """Mean characters of the model's answers, cut to an integer as alpaca_eval does."""
    is_alpaca_eval: bool
    partial: bool
    """Whether instructions are missing or failed."""
    regularization: float | None
    """The C that cross-validation chose for the length-controlled fit: the resamples are refitted with it."""
    intervals: dict[str, Interval]
    """win_rate, and length_controlled_winrate where there is one."""
    by_dataset: dict[str, Interval]
    """Win rate within each collection of instructions."""
    variance: dict[str, float | None]
    """Squared standard error of win_rate (squared percent): total; of it generation and judge, where they were
    measured; and instructions, which is the rest and so holds whatever was not measured."""
    position_bias: float | None
    """Mean preference for the first place, minus one half; null where only one order was asked."""
    self_consistency: float | None
    """Share of pairs in which both orders favour the same answer."""
    answer_mass: dict[str, float] | None
    """mean, min, and low_share: the share of rows below the limit."""
    unreliable_because: list[str]
    """In words; empty: nothing speaks against the score."""


def scored(rows: Sequence[Judged]) -> list[Judged]:
    """The rows that hold a preference, in their order."""
    return [row for row in rows if row.preference is not None]
