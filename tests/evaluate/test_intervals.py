"""The bootstrap refits alpaca_eval's regression, and its intervals hold what they say."""

from pathlib import Path

import numpy as np
import pytest
from alpaca_oracle import refit
from made_up import COEFFICIENTS, gamed_data, population

from kto_release.evaluate.scoring.alpaca import length_controlled
from kto_release.evaluate.scoring.intervals import (
    LengthModel,
    length_controlled_replicates,
    length_model,
    percentile_interval,
    resamples,
    win_rate_replicates,
)
from kto_release.evaluate.scoring.length_data import GAMED_WEIGHT

SOLVER = 0.05
"""Percentage points by which liblinear's own stopping rule (tol=1e-4) leaves its rate off the optimum; at most 0.03 was
seen over 240 fits of real and made-up judgements."""


def test_resamples_draw_as_many_instructions_as_there_are_and_repeat_with_their_seed() -> None:
    """Each resample holds N draws; the same seed gives the same draws, another seed others."""
    counts = resamples(7, 50, seed=3)
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == resamples(7, 50, seed=3)).all()
    assert (counts != resamples(7, 50, seed=4)).any()


def test_win_rate_of_a_resample_counts_each_instruction_as_often_as_it_was_drawn() -> None:
    """Preferences 1, 2 and 1.5 are 0, 1 and one half: drawn (0, 2, 1) times that is 2.5 / 3, (3, 0, 0) times 0."""
    rates = win_rate_replicates(np.array([1.0, 2.0, 1.5]), np.array([[0, 2, 1], [3, 0, 0], [1, 1, 1]]))
    assert rates.tolist() == pytest.approx([250 / 3, 0.0, 50.0], abs=1e-12)


@pytest.mark.parametrize("regularization", [1e-2, 2.782559402207126, 1e4])
def test_a_refit_is_the_packages_own_regression_on_the_resampled_rows(tmp_path: Path, regularization: float) -> None:
    """For resamples written out row by row, alpaca_eval's regression at the same C gives the same rates."""
    data = gamed_data(tmp_path)
    made = population(data.difficulty, seed=1)
    model = length_model(made.preferences, made.differences, data, regularization, COEFFICIENTS)
    counts = resamples(len(made.preferences), 4, seed=5)
    ours = length_controlled_replicates(model, counts)
    gamed = data.gamed
    for count, rate in zip(counts, ours, strict=True):
        rows = np.repeat(np.arange(len(count)), count)
        length = made.differences[rows] / made.differences[rows].std(ddof=1)
        features = np.vstack(
            [
                np.column_stack([np.tanh(gamed.std_delta_len), gamed.instruction_difficulty, np.zeros(len(gamed))]),
                np.column_stack([np.tanh(length), made.difficulty[rows], np.ones(len(rows))]),
            ]
        )
        preferences = np.concatenate([gamed.preference, made.preferences[rows] - 1])
        weights = np.concatenate([np.full(len(gamed), GAMED_WEIGHT), np.ones(len(rows))])
        _, hard, own = refit(preferences, features, weights, regularization)
        theirs = 100 * np.mean(1 / (1 + np.exp(-(hard * made.difficulty[rows] + own))))
        assert rate == pytest.approx(theirs, abs=SOLVER)


def test_the_undrawn_set_gives_the_packages_length_controlled_rate(tmp_path: Path) -> None:
    """With every instruction drawn once, the refit is the point estimate itself."""
    data = gamed_data(tmp_path)
    made = population(data.difficulty, seed=2)
    fit = length_controlled(made.preferences.tolist(), made.differences.tolist(), data)
    model = length_model(made.preferences, made.differences, data, fit.regularization, fit.coefficients)
    rates = length_controlled_replicates(model, np.ones((1, len(made.preferences))))
    assert rates.tolist() == pytest.approx([fit.rate], abs=SOLVER)


def test_a_refit_does_not_depend_on_where_it_starts(tmp_path: Path) -> None:
    """From zero or from a far point the same minimum is found."""
    data = gamed_data(tmp_path)
    made = population(data.difficulty, seed=3)
    counts = resamples(len(made.preferences), 3, seed=0)
    starts = [(0.0, 0.0, 0.0), COEFFICIENTS, (1.0, -1.0, 1.0)]
    rates = [
        length_controlled_replicates(length_model(made.preferences, made.differences, data, 10.0, start), counts)
        for start in starts
    ]
    assert rates[0].tolist() == pytest.approx(rates[1].tolist(), abs=1e-6)
    assert rates[0].tolist() == pytest.approx(rates[2].tolist(), abs=1e-6)


def test_a_resample_without_length_differences_has_no_length_controlled_rate() -> None:
    """Drawn twice the same instruction, the length differences have no spread: the rate is not a number, never 0."""
    model = LengthModel(
        preferences=np.array([0.2, 0.9]),
        differences=np.array([10.0, -40.0]),
        difficulty=np.array([0.1, -0.1]),
        gamed=np.array([[0.5, 0.1], [-0.5, -0.1]]),
        gamed_preferences=np.array([0.3, 0.7]),
        regularization=1.0,
        start=np.zeros(3),
    )
    rates = length_controlled_replicates(model, [[2, 0], [1, 1]])
    assert np.isnan(rates).tolist() == [True, False]


def test_an_interval_is_the_middle_95_percent_of_the_resamples() -> None:
    """Of 0, 1, …, 1000 the 2.5% quantile is 25 and the 97.5% quantile 975."""
    interval = percentile_interval(500.0, np.arange(1001.0), 800)
    assert (interval.value, interval.n, interval.level) == (500.0, 800, 0.95)
    assert (interval.low, interval.high) == pytest.approx((25.0, 975.0), abs=1e-9)
    assert (interval.reliable, interval.note) == (True, None)


@pytest.mark.parametrize(
    ("n", "wins", "note"),
    [
        (805, 130.0, None),
        (805, 19.0, "fewer than 20 wins: 19 of 805"),
        (805, 786.0, "fewer than 20 losses: 19 of 805"),
        (199, 100.0, "fewer than 200 instructions"),
        (40, 3.0, "fewer than 200 instructions; fewer than 20 wins: 3 of 40"),
    ],
)
def test_an_interval_that_does_not_hold_its_level_says_so(n: int, wins: float, note: str | None) -> None:
    """Under 200 instructions, or with fewer than 20 wins or losses, an interval is labelled."""
    interval = percentile_interval(wins / n * 100, np.linspace(0, 100, 11), n, wins=wins)
    assert (interval.reliable, interval.note) == (note is None, note)


@pytest.mark.slow
def test_the_intervals_cover_what_they_say(tmp_path: Path) -> None:
    """95% intervals of both rates hold the true one in 92 to 98% of 400 sets of 805 instructions (noise: 1.1 points).

    A set is drawn from 20,000 made-up instructions whose rates are known: the same functionals of all of them.
    """
    data = gamed_data(tmp_path)
    size, draws = 20_000, 805
    random = np.random.default_rng(0)
    everything = population(random.normal(0, 0.6, size), seed=7)
    model = length_model(everything.preferences, everything.differences, data, 10.0, COEFFICIENTS)
    model = model._replace(difficulty=everything.difficulty, gamed=model.gamed[::5])  # a fifth is enough, and faster
    model = model._replace(gamed_preferences=model.gamed_preferences[::5])
    true_win_rate = float((everything.preferences - 1).mean() * 100)
    true_controlled = float(length_controlled_replicates(model, np.full((1, size), draws / size))[0])

    covered = np.zeros(2)
    for number in range(400):
        rows = random.integers(0, size, draws)
        drawn = model._replace(
            preferences=model.preferences[rows], differences=model.differences[rows], difficulty=model.difficulty[rows]
        )
        counts = resamples(draws, 200, seed=number)
        rates = win_rate_replicates(everything.preferences[rows], counts)
        controlled = length_controlled_replicates(drawn, counts)
        for which, (true, values) in enumerate([(true_win_rate, rates), (true_controlled, controlled)]):
            interval = percentile_interval(float(values.mean()), values, draws)
            covered[which] += interval.low <= true <= interval.high
    assert np.abs(covered / 400 * 100 - 95).max() <= 3
