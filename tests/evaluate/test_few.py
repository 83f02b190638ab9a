"""Few questions: intervals and tests that hold their level."""

import numpy as np
import pytest

from kto_release.evaluate.scoring.few import difference_interval, rate_interval, sign_flip
from kto_release.evaluate.scoring.verdict import needed, verdict_of

NONE = np.zeros(0)


def test_yes_or_no_questions_have_clopper_and_pearsons_interval() -> None:
    """8 of 10, by scipy's own exact interval: 44.4 to 97.5; Student's t for so few makes it wider, never narrower."""
    interval = rate_interval(80.0, np.array([1.0] * 8 + [0.0] * 2), NONE)
    assert interval.low < 44.4
    assert interval.high > 97.5
    assert (interval.value, interval.n, interval.reliable, interval.note) == (80.0, 10, True, None)


def test_all_won_has_no_empty_interval() -> None:
    """Twenty wins of twenty: the true rate may be 83%, whatever the spread of what was seen."""
    interval = rate_interval(100.0, np.ones(20), NONE)
    assert interval.high == 100.0
    assert 70 < interval.low < 84


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("size", [20, 60])
def test_the_intervals_hold_their_level(size: int, rate: float) -> None:
    """Of 400 sets of wins and losses, and of soft preferences, at least 93% (noise: 1.1 points) hold the true rate."""
    random = np.random.default_rng(size)
    for values in ((random.random((400, size)) < rate) * 1.0, random.beta(rate, 1 - rate, (400, size))):
        intervals = [rate_interval(float(one.mean() * 100), one, NONE) for one in values]
        assert np.mean([one.low <= 100 * rate <= one.high for one in intervals]) >= 0.93


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([0.5] * 5, 2 / 32),
        ([0.5] * 6, 2 / 64),
        ([0.5] * 5 + [-0.5], 14 / 64),
        ([0.3, 0.0, 0.0], 1.0),
        ([0.0] * 4, 1.0),
    ],
)
def test_signs_are_flipped_by_hand(differences: list[float], p_value: float) -> None:
    """Of all 2^k choices of signs those count whose sum is as far from 0: k equal ones have 2, one against 5 has 2 + 12."""
    assert sign_flip(np.array(differences)) == pytest.approx(p_value)


def test_many_signs_are_drawn() -> None:
    """Beyond 14 differences 10,000 choices are drawn: none as far gives 1 in 10,001."""
    assert sign_flip(np.full(40, 0.1)) == pytest.approx(1 / 10_001)


@pytest.mark.parametrize("size", [10, 24])
def test_equal_models_are_called_better_or_worse_in_at_most_five_of_a_hundred(size: int) -> None:
    """500 pairs of equal models under a soft judge: at most 7% (noise: 1 point), where the bootstrap has 12% at n = 10."""
    random = np.random.default_rng(size)
    false = 0
    for _ in range(500):
        quality = random.beta(1, 1, size)
        one, other = (np.clip(quality + random.normal(0, 0.2, size), 0, 1) for _ in "ab")
        gains = one - other
        false += verdict_of(gains, difference_interval(gains, NONE, 0)).said != "not distinguishable"
    assert false / 500 <= 0.07


def test_how_many_questions_would_tell() -> None:
    """A spread of 20 points: (2.801585 * 20 / 5)^2 = 125.6, so 126 for 5 points, and 785 for 2."""
    differences = np.array([0.2, -0.2] * 500)
    differences *= 0.2 / np.std(differences, ddof=1)
    assert (needed(differences, 5), needed(differences, 2)) == (126, 785)
    assert needed(np.zeros(10), 5) is None


def test_the_verdict_in_words() -> None:
    """30 won, 6 lost, 4 drawn of 40 is better, with everything that stands behind it, doubts last."""
    gains = np.array([0.5] * 30 + [-0.5] * 6 + [0.0] * 4)
    points = rate_interval(80.0, gains + 0.5, NONE)
    points = points.model_copy(update={name: getattr(points, name) - 50 for name in ("value", "low", "high")})
    verdict = verdict_of(gains, points, ["gamed: one answer"])
    assert (verdict.said, verdict.won, verdict.lost, verdict.drawn) == ("better", 30, 6, 4)
    assert verdict.in_words().startswith(
        "better (NOT to be relied on): 30 won, 6 lost, 4 drawn of 40; +30.0 points (+14.9 to +40.7), p < 0.0002; "
    )
    assert verdict.in_words().endswith("would tell 5 points; not to be relied on: gamed: one answer")
    assert verdict_of(np.zeros(4), difference_interval(np.zeros(4), NONE, 0)).said == "not distinguishable"
