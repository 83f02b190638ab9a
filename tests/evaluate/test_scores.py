"""Judged rows become scores: placed by instruction, complete or said not to be, and with their uncertainty."""

import random
from typing import Any

import pytest

from kto_release.errors import ScoreError
from kto_release.evaluate.scoring.scores import Scores, score
from kto_release.judges.rows import Judged

OWN = ["Count to three.", "Name a colour.", "Say hello.", "Translate: chat."]


LEANS = (0.3, -0.2, 0.1, -0.3)


def judged(number: int, preference: float | None, **changes: Any) -> Judged:
    """A row for one of OWN."""
    plain = {"dataset": None, "output": "m" * (10 + number), "reference": "r" * 20, "preference": preference}
    return Judged(**({"instruction": OWN[number]} | plain | changes))


def score_own(rows: list[Judged], **options: Any) -> Scores:
    return score(rows, expected=OWN, lc_data=None, **options)


def test_scores_of_an_own_set_by_hand() -> None:
    """Preferences 1, 2, 1.5, 1.25: 43.75% (see test_alpaca); answers of 10 to 13 characters are 11.5, cut to 11."""
    scores = score_own([judged(0, 1.0), judged(1, 2.0), judged(2, 1.5), judged(3, 1.25)])
    assert scores.win_rate == 43.75
    assert scores.standard_error == pytest.approx(100 * (0.546875 / 12) ** 0.5, rel=1e-12)
    assert (scores.discrete_win_rate, scores.avg_length) == (37.5, 11)
    assert (scores.n_total, scores.n_missing, scores.n_failed, scores.partial) == (4, 0, 0, False)
    assert (scores.n_wins, scores.n_wins_base, scores.n_draws) == (1, 2, 1)
    assert (scores.length_controlled_winrate, scores.no_length_control) == (
        None,
        "the instructions are not AlpacaEval's",
    )
    interval = scores.intervals["win_rate"]
    assert (interval.value, interval.n, interval.reliable) == (43.75, 4, True)
    assert 0 <= interval.low < 43.75 < interval.high <= 100
    discrete = scores.intervals["discrete_win_rate"]
    assert (discrete.value, discrete.n, discrete.reliable) == (37.5, 4, True)
    assert discrete.low < 37.5 < discrete.high
    assert scores.unreliable_because == []


def test_the_order_of_rows_changes_nothing() -> None:
    """Shuffled rows give the very same scores, intervals included."""
    rows = [judged(0, 1.1), judged(1, 1.9), judged(2, 1.5), judged(3, 1.3)]
    shuffled = random.Random(5).sample(rows, 4)
    assert shuffled != rows
    assert score_own(shuffled) == score_own(rows)


def test_missing_instructions_are_an_error_that_names_them() -> None:
    """Two of four without a judgement: how many, which, and what to do."""
    with pytest.raises(ScoreError) as caught:
        score_own([judged(1, 2.0), judged(2, 1.5)])
    assert str(caught.value) == (
        "no judgement for 2 of 4 instructions: 'Count to three.', 'Translate: chat.'\n"
        "  expected: a judgement for every instruction\n"
        "  to do: judge them, or pass --allow-partial: a marked result without a length-controlled rate"
    )


def test_failed_judgements_are_an_error_that_names_them() -> None:
    """A failure is neither a loss nor left out in silence."""
    with pytest.raises(ScoreError) as caught:
        score_own([judged(0, 1.0), judged(1, None, failure="timeout"), judged(2, 1.5), judged(3, 1.2)])
    assert caught.value.problem == "failed judgements: 1 of 4: 'Name a colour.' (timeout)"


def test_a_wished_partial_result_is_marked() -> None:
    """With allow_partial what is there is scored, and what is not is counted."""
    rows = [judged(0, 1.0), judged(1, None, failure="timeout"), judged(2, 2.0)]
    scores = score_own(rows, allow_partial=True)
    assert (scores.win_rate, scores.n_total, scores.n_missing, scores.n_failed) == (50.0, 2, 1, 1)
    assert scores.partial is True
    assert scores.unreliable_because[0] == "partial: 2 of 4 judgements are missing or failed"


def test_nothing_to_score_is_an_error_even_when_partial() -> None:
    """Failures alone are no score."""
    with pytest.raises(ScoreError, match="no judgement can be scored"):
        score_own([judged(0, None)], allow_partial=True)


def test_a_doubled_instruction_is_an_error() -> None:
    """Two judgements of one answer: neither is chosen."""
    rows = [judged(number, 1.5) for number in range(4)]
    with pytest.raises(ScoreError) as caught:
        score_own([*rows, judged(2, 1.9)], allow_partial=True)
    assert str(caught.value) == (
        "instructions that are judged more than once: rows 3, 5\n"
        "  expected: one row for each instruction\n"
        "  to do: keep the row that you mean"
    )


def test_a_foreign_instruction_is_an_error() -> None:
    """An instruction outside the set is not scored along, in an own set or in AlpacaEval's."""
    rows = [judged(number, 1.5) for number in range(4)]
    with pytest.raises(ScoreError) as caught:
        score_own([*rows, judged(0, 1.5, instruction="Something else.")])
    assert caught.value.problem == ("1 of 5 judged rows hold an instruction that is not the instruction set's: row 5")
    with pytest.raises(ScoreError) as caught:
        score(rows, expected=None, lc_data=None)
    assert caught.value.problem == "4 of 4 judged rows hold an instruction that is not AlpacaEval's: rows 1-4"


@pytest.mark.parametrize("value", [-1, 0, 0.999, 2.001, 3, float("nan"), float("inf"), True, "1.5"])
def test_a_preference_outside_its_range_is_an_error(value: Any) -> None:
    """alpaca_eval drops such a value or, worse, fits it; here it stops the scoring, partial or not."""
    rows = [judged(0, 1.5), judged(1, value), judged(2, 1.5), judged(3, 1.5)]
    with pytest.raises(ScoreError, match="row 2: the preference is"):
        score_own(rows, allow_partial=True)


def test_position_bias_and_consistency_by_hand() -> None:
    """Three pairs in both orders (reference first, model first).

    The first place is preferred by ((2 − 1.2) + (1.8 − 1)) / 2 = 0.8, by ((2 − 1.6) + (1.6 − 1)) / 2 = 0.5 and by
    ((2 − 1) + (1.4 − 1)) / 2 = 0.7, on average 2/3: a bias of 1/6. Only the second and third favour the same answer
    in both orders (the model 1.6 and 1.6; the reference 1.0 and 1.4).
    """
    rows = [
        judged(0, 1.5, preferences=(1.2, 1.8)),
        judged(1, 1.6, preferences=(1.6, 1.6)),
        judged(2, 1.2, preferences=(1.0, 1.4)),
        judged(3, 1.7, preferences=(1.7, None)),
    ]
    scores = score_own(rows)
    assert scores.position_bias == pytest.approx(1 / 6, abs=1e-12)
    assert scores.self_consistency == pytest.approx(2 / 3, abs=1e-12)
    assert scores.unreliable_because == ["the judge prefers the answer shown first, by 17% on average"]


def test_one_order_measures_no_bias() -> None:
    """Asked in one order only, both are null: not measured is not zero."""
    scores = score_own([judged(number, 1.5, preferences=(1.5,)) for number in range(4)])
    assert (scores.position_bias, scores.self_consistency, scores.variance["judge"]) == (None, None, None)


def test_little_probability_on_the_answers_makes_a_score_unreliable() -> None:
    """Masses 0.1, 0.2, 0.3 and 0.8: mean 0.35, least 0.1, three of four below one half."""
    masses = [0.1, 0.2, 0.3, 0.8]
    scores = score_own([judged(number, 1.5, mass=mass) for number, mass in enumerate(masses)])
    assert scores.answer_mass == {"mean": pytest.approx(0.35), "min": 0.1, "low_share": 0.75}
    assert scores.unreliable_because == [
        "the judge puts only 35% of its probability on the answer letters (below 50%): it does not follow the question"
    ]


def test_several_samples_count_as_one_instruction() -> None:
    """Two answers to each of four instructions: the win rate is the mean over instructions of their means.

    The means are 1.25, 1.75, 1.5 and 1.5, so the win rate is 50%, and its standard error that of 0.25, 0.75, 0.5, 0.5:
    √((0.0625 + 0.0625) / 3 / 4).
    """
    pairs = [(1.0, 1.5), (1.5, 2.0), (1.5, 1.5), (1.0, 2.0)]
    rows = [judged(n, value, sample=s) for n, pair in enumerate(pairs) for s, value in enumerate(pair)]
    scores = score_own(rows)
    assert (scores.win_rate, scores.n_total, scores.intervals["win_rate"].n) == (50.0, 8, 4)
    assert scores.standard_error == pytest.approx(100 * (0.125 / 12) ** 0.5, rel=1e-12)


def test_a_missing_sample_is_a_missing_judgement() -> None:
    """Where one instruction has fewer answers than the others, that is said."""
    rows = [judged(n, 1.5, sample=s) for n in range(4) for s in range(2)]
    with pytest.raises(ScoreError, match="no judgement for 1 of 4 instructions: 'Translate: chat.'"):
        score_own(rows[:-1])


def test_the_variance_is_split_by_hand() -> None:
    """Two samples of each of four instructions, each question asked four times in one order.

    The means are 1.2, 2, 1.5 and 1.1: mean 1.45, squares 0.0625 + 0.3025 + 0.0025 + 0.1225 = 0.49, so the squared
    standard error is 0.49 / 3 / 4 = 0.0408333. Samples differ by 0.2, 0, 0.2 and 0: variances 0.02, 0, 0.02, 0, mean
    0.01, over 8 answers 0.00125. Votes: p(1 - p) of 0.1, 0.3, 1, 1, 0.4, 0.6, 0.1, 0.1 is 0.09 + 0.21 + 0.24 + 0.24 +
    0.09 + 0.09 = 0.96; over 3, over the square of 8 answers, 0.005. The samples' spread holds the judge's: nothing is
    left of it, and the rest is 0.0358333.
    """
    pairs = [(1.1, 1.3), (2.0, 2.0), (1.4, 1.6), (1.1, 1.1)]
    rows = [
        judged(number, value, sample=sample, preferences=(value, None))
        for number, pair in enumerate(pairs)
        for sample, value in enumerate(pair)
    ]
    variance = score_own(rows, votes=4).variance
    assert variance == {
        "total": pytest.approx(1e4 * 0.49 / 12),
        "judge": pytest.approx(50),
        "generation": 0.0,
        "instructions": pytest.approx(1e4 * 0.49 / 12 - 50),
    }
    assert score_own(rows).variance["generation"] == pytest.approx(12.5)


def test_a_liking_for_a_place_is_no_noise_of_the_judge() -> None:
    """Orders that differ by prompt and cancel in their mean say nothing of how a judge varies: that was not measured."""
    rows = [judged(n, 1.5 + n / 100, preferences=(1.5 + n / 100 - b, 1.5 + n / 100 + b)) for n, b in enumerate(LEANS)]
    variance = score_own(rows).variance
    assert (variance["judge"], variance["instructions"]) == (None, variance["total"])


def test_parts_never_exceed_the_whole() -> None:
    """Samples that spread far around equal means would have more variance than there is: they have all of it."""
    rows = [judged(n, value, sample=s) for n in range(4) for s, value in enumerate((1.0, 2.0 - n / 100))]
    variance = score_own(rows).variance
    assert variance["generation"] == variance["total"]
    assert variance["instructions"] == 0.0


def test_each_collection_has_its_own_win_rate() -> None:
    """Two collections of two instructions; rows without one are listed as other."""
    rows = [
        judged(0, 1.0, dataset="koala"),
        judged(1, 1.5, dataset="koala"),
        judged(2, 2.0, dataset="vicuna"),
        judged(3, 1.8),
    ]
    found = score_own(rows).by_dataset
    assert {name: (pytest.approx(interval.value), interval.n) for name, interval in found.items()} == {
        "koala": (25.0, 2),
        "other": (80.0, 1),
        "vicuna": (100.0, 1),
    }
    assert {name: interval.note for name, interval in found.items()} == {
        "koala": None,
        "other": "a single instruction",
        "vicuna": "a single instruction",
    }


def test_the_seed_decides_the_interval() -> None:
    """The same seed gives the same interval, another seed another one."""
    texts = [f"Instruction {number}" for number in range(200)]
    rows = [Judged(text, None, "m", "r", 1.1 + number % 9 / 10) for number, text in enumerate(texts)]
    first, again, other = (score(rows, expected=texts, lc_data=None, seed=s, bootstrap=101) for s in (1, 1, 2))
    assert first.intervals == again.intervals != other.intervals


def test_longer_answers_are_controlled_for_on_an_own_set() -> None:
    """Preferences that are all length (0.8 for longer, 0.2 for shorter) are even at equal length; 70% of them are longer.

    Where length makes no difference, the rate at equal length is the win rate.
    """
    texts = [f"Instruction {number}" for number in range(100)]
    longer = [number % 10 < 7 for number in range(100)]
    rows = [
        Judged(text, None, "m" * (200 if long else 100), "r" * 150, 1.8 if long else 1.2)
        for text, long in zip(texts, longer, strict=True)
    ]
    found = score(rows, expected=texts, lc_data=None, bootstrap=100)
    interval = found.intervals["own_length_controlled_winrate"]
    assert found.win_rate == pytest.approx(62.0)
    assert interval.value == pytest.approx(50.0, abs=2)
    assert (interval.n, interval.reliable) == (100, False)
    even = [row._replace(preference=1.6) for row in rows]
    controlled = score(even, expected=texts, lc_data=None, bootstrap=100).intervals["own_length_controlled_winrate"]
    assert controlled.value == pytest.approx(60.0, abs=0.5)
