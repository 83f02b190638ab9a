"""What a judge's number means: agreement, ranks, and an estimate that never passes for a measurement."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from evaluations import JUDGE
from judge_server import judge_server
from sklearn.metrics import cohen_kappa_score

from kto_release.errors import DataError, RecipeError, ScoreError
from kto_release.evaluate.calibration.agreement import (
    calibrate,
    cohens_kappa,
    estimate,
    fit_map,
    log_odds,
    map_to_official,
    rank_correlation,
)
from kto_release.evaluate.calibration.anchors import Anchor, draw, load_anchors
from kto_release.evaluate.calibration.command import calibrate_judge, estimated, read_calibration
from kto_release.evaluate.scoring.leaderboard import Published
from kto_release.evaluate.scoring.scores import score
from kto_release.judges.rows import Judged
from kto_release.recipe import Recipe
from kto_release.run import Run


def anchor(name: str, win_rate: float, preferences: Sequence[float | None], n_total: int = 805) -> Anchor:
    """A model of known scores, with the official judge's preferences at positions 0, 1, …"""
    rows = {
        number: Judged(f"Instruction {number}", None, f"{name} {number}", "reference", preference)
        for number, preference in enumerate(preferences)
    }
    return Anchor(Published(name, 1, win_rate, 1.0, win_rate + 5, 100, n_total), rows)


def judged(one: Anchor, preferences: Sequence[float | None]) -> list[Judged]:
    return [one.rows[n]._replace(preference=value) for n, value in enumerate(preferences)]


def test_kappa_by_hand() -> None:
    """Verdicts (mine, theirs): two models, model and reference, two references, of 5: agreement 4/5.

    Mine are 3/5 model, theirs 2/5, so chance agrees in 3/5 · 2/5 + 2/5 · 3/5 = 12/25: kappa = (20/25 − 12/25) / (13/25).
    """
    mine, theirs = np.array([1.9, 1.6, 1.7, 1.2, 1.0]), np.array([1.8, 1.9, 1.1, 1.4, 1.2])
    assert cohens_kappa(mine, theirs, np.ones(5)) == pytest.approx(8 / 13)


def test_kappa_is_scikit_learns() -> None:
    """On random verdicts with draws, and weights, the two agree."""
    random = np.random.default_rng(0)
    mine, theirs = (random.choice([1.2, 1.5, 1.8], 200) for _ in range(2))
    weights = random.integers(0, 4, 200).astype(float)
    expected = cohen_kappa_score(np.sign(mine - 1.5), np.sign(theirs - 1.5), sample_weight=weights)
    assert cohens_kappa(mine, theirs, weights) == pytest.approx(expected, abs=1e-12)


def test_kappa_of_one_verdict_is_not_a_number() -> None:
    """Where both always say the same, agreement says nothing about chance."""
    assert math.isnan(cohens_kappa(np.array([1.2, 1.1]), np.array([1.3, 1.4]), np.ones(2)))


def test_a_perfect_rank_correlation_of_six_is_not_certain() -> None:
    """Half a step below 1 is 1 − 6/210; ± 1.96 · √(1.06/3) on Fisher's scale, that is from 0.741."""
    found = rank_correlation([1, 2, 3, 4, 5, 6], [2, 4, 6, 8, 10, 12])
    assert found is not None
    low = math.tanh(math.atanh(1 - 6 / 210) - 1.959964 * math.sqrt(1.06 / 3))
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(low, abs=1e-6), 1.0)
    assert round(found.low, 3) == 0.741
    assert (found.n, found.reliable) == (6, False)


def test_ranks_by_hand() -> None:
    """Ranks 1 2 3 4 against 2 1 4 3: the squared differences sum to 4, so rho = 1 − 6·4 / (4·15) = 0.6."""
    found = rank_correlation([10, 20, 30, 40], [5, 1, 9, 7])
    assert found is not None
    assert found.value == pytest.approx(0.6)
    assert found.low < -0.8  # four anchors say next to nothing
    three = rank_correlation([1, 2, 3], [1, 2, 3])
    assert three is not None
    assert (three.low, three.high) == (-1.0, 1.0)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 2, 3, 4], [5, 5, 5, 5]) is None


def test_log_odds_stay_finite() -> None:
    """50% is 0; nothing won in 100 is half a win: log(0.005 / 0.995)."""
    assert log_odds(50, 100) == 0
    assert log_odds(0, 100) == pytest.approx(math.log(0.005 / 0.995))
    assert log_odds(100, 100) == pytest.approx(-log_odds(0, 100))


def test_a_map_through_anchors_on_a_line_is_that_line() -> None:
    """Official log odds = 1/2 · own − 1: no spread is left, and a win rate without error maps to a single value."""
    own = [20.0, 40.0, 50.0, 60.0, 80.0]
    official = [100 / (1 + math.exp(1 - log_odds(rate, 10**6) / 2)) for rate in own]
    line = fit_map("win_rate", own, official, 10**6)
    assert line is not None
    assert (line.slope, line.intercept) == (pytest.approx(0.5, abs=1e-4), pytest.approx(-1, abs=1e-4))
    assert line.residual < 1e-3
    found = map_to_official(line, 50.0, 0.0, 10**6)
    assert found.value == pytest.approx(100 / (1 + math.e), abs=0.01)
    assert found.high - found.low < 0.1
    assert found.note == "5 anchors are few"
    assert map_to_official(line, 90.0, 0.0, 10**6).note == (
        "5 anchors are few; outside the anchors' range of 20.0 to 80.0%"
    )


def test_a_map_needs_four_anchors_of_different_strength() -> None:
    """Two parameters from three points, or from one point four times, would be no map."""
    assert fit_map("win_rate", [10, 20, 30], [10, 20, 30], 805) is None
    assert fit_map("win_rate", [10, 20, 30, 40], [10, 20, 30, None], 805) is None
    assert fit_map("win_rate", [20, 20, 20, 20], [10, 20, 30, 40], 805) is None
    assert fit_map("win_rate", [10, 20, 30, 40], [10, 20, 30, 40], 805) is not None


def test_the_estimate_covers_what_it_says() -> None:
    """Of 2,000 new models, each with six anchors of its own, 95% lie in their interval, within 1.5 points (noise: 0.5)."""
    random = np.random.default_rng(0)

    def official(logits: np.ndarray) -> np.ndarray:
        return 100 / (1 + np.exp(-(0.8 * logits - 0.3 + random.normal(0, 0.4, len(logits)))))

    covered = 0
    for _ in range(2000):
        logits = random.normal(-1, 1, 7)
        rates, scores = 100 / (1 + np.exp(-logits)), official(logits)
        line = fit_map("win_rate", rates[:6].tolist(), scores[:6].tolist(), 10**6)
        assert line is not None
        found = map_to_official(line, float(rates[6]), 0.0, 10**6)
        covered += found.low <= scores[6] <= found.high
    assert abs(covered / 20 - 95) <= 1.5


def test_the_win_rates_own_error_widens_the_estimate() -> None:
    """On a line without spread, of slope 1/2, an error of 2 points at 50% is 1/2 · 0.02 / (0.5 · 0.5) = 0.04 log odds.

    The interval reaches t(0.975; 3 degrees of freedom) = 3.1824 times as far.
    """
    own = [20.0, 40.0, 50.0, 60.0, 80.0]
    official = [100 / (1 + math.exp(1 - log_odds(rate, 805) / 2)) for rate in own]
    line = fit_map("win_rate", own, official, 805)
    assert line is not None
    found = map_to_official(line, 50.0, 2.0, 805)
    reach = 3.182446 * 0.04
    assert found.low == pytest.approx(100 / (1 + math.exp(1 + reach)), abs=0.01)
    assert found.high == pytest.approx(100 / (1 + math.exp(1 - reach)), abs=0.01)


def test_a_calibration_of_the_official_judge_by_itself() -> None:
    """It agrees with itself: kappa 1, no difference, ranks alike; failed rows are counted and take part in nothing."""
    anchors = [
        anchor("a", 10.0, [1.1, 1.2, 1.0, 1.6, 1.1]),
        anchor("b", 20.0, [1.9, 1.2, 1.0, 1.6, 1.1]),
        anchor("c", 30.0, [1.9, 1.9, 1.1, 1.6, 1.2]),
        anchor("d", 40.0, [None] * 5),
    ]
    preferences = {one.published.name: [row.preference for row in one.rows.values()] for one in anchors}
    preferences["d"] = [1.9, 1.9, 1.9, 1.9, None]
    made = {one.published.name: judged(one, preferences[one.published.name]) for one in anchors}
    record = calibrate(anchors, made, JUDGE, range(5), seed=0, bootstrap=200)
    assert record.kappa is not None
    assert record.mean_absolute_difference is not None
    assert record.rank_correlation is not None
    assert (record.kappa.value, record.mean_absolute_difference.value, record.rank_correlation.value) == (1, 0, 1)
    assert (record.n_failed, record.sample) == (1, 5)
    assert [(one.compared, one.agreement, one.win_rate.n) for one in record.anchors] == [
        (5, 1.0, 5),
        (5, 1.0, 5),
        (5, 1.0, 5),
        (0, None, 4),
    ]
    assert record.anchors[0].win_rate.value == pytest.approx(20.0)
    assert [line.target for line in record.maps] == ["win_rate", "length_controlled_winrate"]


def test_published_length_controlled_rates_of_incomplete_models_are_not_used() -> None:
    """They are wrong by up to 2.8 points, so with three complete anchors there is no map to that scale."""
    anchors = [anchor(name, 10.0 * n, [1.0 + n / 5] * 2, 805 if n < 4 else 804) for n, name in enumerate("abcd", 1)]
    made = {one.published.name: list(one.rows.values()) for one in anchors}
    record = calibrate(anchors, made, JUDGE, range(2), seed=0, bootstrap=100)
    assert [line.target for line in record.maps] == ["win_rate"]


def test_an_anchor_without_a_judgement_is_an_error() -> None:
    """A model of which every judgement failed has no rate, and not 0%."""
    one = anchor("a", 10.0, [1.1, 1.2])
    failed = [row._replace(preference=None, failure="timeout") for row in one.rows.values()]
    with pytest.raises(ScoreError, match="no judgement of a can be used: timeout"):
        calibrate([one], {"a": failed}, JUDGE, range(2), seed=0, bootstrap=100)


def test_an_estimate_says_that_it_is_one() -> None:
    """Its words begin with it, its numbers carry it in their names, and its range is given."""
    anchors = [anchor(name, 10.0 * n, [1.0 + n / 10, 1.1]) for n, name in enumerate("abcde", 1)]
    made = {one.published.name: list(one.rows.values()) for one in anchors}
    found = estimate(calibrate(anchors, made, JUDGE, range(2), seed=0, bootstrap=100), 20.0, 1.0, 805)
    text = str(found["text"])
    assert text.startswith("estimated, never measured: win rate ")
    assert text.count("; 5 anchors are few)") == 2
    assert text.endswith("; from 5 anchors, rank correlation 1.00")
    assert set(found) - {"text", "anchors"} == {
        f"estimated_{target}{end}"
        for target in ("win_rate", "length_controlled_winrate")
        for end in ("", "_low", "_high")
    }


def test_a_sample_is_seeded_and_common_to_all() -> None:
    """The same seed draws the same positions, of those that every anchor has; None draws all of them."""
    anchors = [anchor("a", 1.0, [1.1] * 50), anchor("b", 1.0, [1.1] * 40)]
    assert draw(anchors, 10, 0) == draw(anchors, 10, 0) != draw(anchors, 10, 1)
    assert draw(anchors, None, 0) == draw(anchors, 99, 0) == list(range(40))
    with pytest.raises(DataError, match="the anchors have 1 instructions in common"):
        draw([anchors[0], anchor("c", 1.0, [1.1])], 10, 0)


@pytest.mark.slow
def test_anchors_are_models_of_the_leaderboard(shared_data: Path) -> None:
    """The six with stored judgements and three with stored answers, by their published win rates."""
    anchors = load_anchors(shared_data / "alpaca_eval")
    assert [(one.published.name, len(one.rows)) for one in anchors] == [
        ("alpaca-7b_verbose", 802),
        ("gemma-2b-it", 805),
        ("gpt35_turbo_instruct", 804),
        ("OpenHermes-2.5-Mistral-7B", 805),
        ("Mistral-7B-Instruct-v0.2", 805),
        ("claude-2.1", 805),
        ("FuseChat-Llama-3.2-1B-Instruct", 805),
        ("Snorkel-Mistral-PairRM-DPO", 805),
        ("Contextual-KTO-Mistral-PairRM", 805),
    ]
    known = [sum(row.preference is not None for row in one.rows.values()) for one in anchors]
    assert known == [802, 805, 804, 805, 0, 805, 805, 0, 0]
    assert anchors[4].rows[0].reference == anchors[5].rows[0].reference


def test_a_folder_without_anchors_is_an_error(tmp_path: Path) -> None:
    """No folder, an empty one, and one whose models nobody knows."""
    with pytest.raises(DataError, match="no such folder"):
        load_anchors(tmp_path / "none")
    with pytest.raises(DataError, match="holds no anchor"):
        load_anchors(tmp_path)
    (tmp_path / "mine.json").write_text('[{"instruction": "a", "output": "b", "generator": "mine"}]')
    with pytest.raises(DataError, match=r"not on the official leaderboard: \['mine.json'\]"):
        load_anchors(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose recipe has no judge yet."""
    plain = {"name": "run", "model": {"base": "base"}, "data": {"source": "feedback.jsonl", "partitions": 1}}
    return Run.open(Recipe.model_validate(plain), tmp_path)


def with_judge(run: Run, url: str) -> Run:
    judge = {"kind": "openai", "model": "judge-1", "base_url": url, "verdict": "logprobs"}
    recipe = Recipe.model_validate({**run.recipe.dump(), "eval": {"judge": judge}})
    return Run(recipe, run.path)


@pytest.mark.slow
def test_a_judge_is_calibrated_with_real_anchors(
    run: Run, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine anchors on five instructions: what it takes is shown first, each question is paid once, and scores are mapped.

    The judge on loopback prefers the longer answer: a third call asks nothing, and another sample asks only what is new.
    """
    with judge_server() as server:
        run = with_judge(run, server.url)
        record = calibrate_judge(run, shared_data / "alpaca_eval", sample=5)
        asked = len(server.asked)
        assert asked == 45 + 1  # and one probe
        again = calibrate_judge(run, shared_data / "alpaca_eval", sample=5)
        assert len(server.asked) == asked
    out = capsys.readouterr().out
    assert "5 instructions each, one order: 45 judgements at most" in out
    assert out.index("45 judgements at most") < out.index("rank correlation")
    assert again.model_dump(exclude={"finished"}) == record.model_dump(exclude={"finished"})
    assert (len(record.anchors), record.sample, record.n_failed) == (9, 5, 0)
    assert read_calibration(run.path / "eval", record.judge) == again
    assert read_calibration(run.path / "eval", record.judge.model_copy(update={"model": "judge-2"})) is None


def test_only_full_scores_on_the_official_reference_are_mapped() -> None:
    """A partial result, own instructions, another reference and the official judge itself get no estimate."""
    anchors = [anchor(name, 10.0 * n, [1.0 + n / 10, 1.1]) for n, name in enumerate("abcde", 1)]
    made = {one.published.name: list(one.rows.values()) for one in anchors}
    record = calibrate(anchors, made, JUDGE, range(2), seed=0, bootstrap=100)
    own = score([Judged("a", None, "b", "c", 1.5)], expected=["a"], lc_data=None, bootstrap=100)
    full = own._replace(is_alpaca_eval=True)
    official = JUDGE.model_copy(update={"official": True})
    assert estimated(record, full, JUDGE, "gpt4_1106_preview") is not None
    assert estimated(None, full, JUDGE, "gpt4_1106_preview") is None
    assert estimated(record, own, JUDGE, "gpt4_1106_preview") is None
    assert estimated(record, full._replace(partial=True), JUDGE, "gpt4_1106_preview") is None
    assert estimated(record, full, JUDGE, "initial") is None
    assert estimated(record, full, official, "gpt4_1106_preview") is None


def test_without_a_judge_nothing_is_calibrated(run: Run, tmp_path: Path) -> None:
    """The recipe must name the judge, and no folder is made."""
    with pytest.raises(RecipeError, match="names no judge to calibrate"):
        calibrate_judge(run, tmp_path)
    assert not run.path.exists()
