"""Two evaluations are compared pair by pair, where they can be compared at all."""

from pathlib import Path

import numpy as np
import pytest
from command import run_command
from evaluations import JUDGE, write_evaluation

from kto_release.errors import RunError, ScoreError
from kto_release.evaluate.compare import against_earlier, load
from kto_release.evaluate.comparison.command import compare_runs
from kto_release.evaluate.score_file import score_annotations
from kto_release.evaluate.scoring.intervals import resamples
from kto_release.evaluate.scoring.paired import Comparison, difference
from kto_release.files import read_record
from kto_release.records import EvalRecord

MIXED = [1.0, 1.2, 1.9, 1.5, 1.4, 1.8] * 40


def compared(first: Path, second: Path) -> Comparison:
    return compare_runs([first, second], length_control=False)[0]


def test_a_model_is_not_distinguishable_from_itself(tmp_path: Path) -> None:
    """The difference is 0, its interval is empty, and p is 1."""
    one = write_evaluation(tmp_path / "a", "initial", MIXED)
    other = write_evaluation(tmp_path / "b", "initial", MIXED)
    found = compared(one, other).win_rate
    assert (found.interval.value, found.interval.low, found.interval.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert found.verdict == "not distinguishable"


def test_a_small_gain_on_every_instruction_is_seen_although_the_intervals_overlap(tmp_path: Path) -> None:
    """Two points more on each instruction: paired, that is certain; the two intervals alone span eight points."""
    better = [value + 0.02 for value in MIXED[:-1]] + [MIXED[-1] + 0.021]
    one = write_evaluation(tmp_path / "a", "iteration-1", better)
    other = write_evaluation(tmp_path / "b", "initial", MIXED)
    found = compared(one, other)
    assert found.win_rate.interval.value == pytest.approx(2.0, abs=0.01)
    assert found.win_rate.verdict == "better"
    assert found.win_rate.p_value == pytest.approx(1 / 10_001)
    assert compared(other, one).win_rate.verdict == "worse"
    assert (found.first, found.second, found.instructions) == ("iteration-1", "initial", 240)
    assert found.no_length_control == "the instructions are not AlpacaEval's"


def test_interval_and_p_value_by_hand() -> None:
    """Of 999 resamples 30 are at most 0: p = 2 · 31 / 1000; the 2.5% quantile, below 0, agrees with it."""
    replicates = np.concatenate([np.full(30, -1.0), np.full(969, 2.0)])
    found = difference(1.5, replicates, 500)
    assert found.p_value == pytest.approx(0.062)
    assert (found.interval.low, found.interval.high, found.verdict) == (-1.0, 2.0, "not distinguishable")


def test_equal_models_are_told_apart_in_five_of_a_hundred_comparisons() -> None:
    """600 pairs of equally good models on 250 instructions: one is called better in 5%, within 3 points (noise: 0.9)."""
    random = np.random.default_rng(0)
    size, found = 250, 0
    counts = resamples(size, 999, seed=0)
    for _ in range(600):
        gains = random.beta(0.3, 1.2, size) - random.beta(0.3, 1.2, size)
        result = difference(float(gains.mean() * 100), counts @ gains / size * 100, size)
        if result.verdict != "not distinguishable":
            assert result.interval.low > 0 or result.interval.high < 0
            assert result.p_value < 0.05
            found += 1
    assert abs(found / 6 - 5) <= 3


def test_a_difference_that_hardly_any_instruction_shows_is_labelled(tmp_path: Path) -> None:
    """Five of 24 instructions tell the two apart, and 6 it takes; with all 24 nothing is wrong with so few."""
    one = write_evaluation(tmp_path / "a", "iteration-1", [1.9] * 5 + [1.2] * 19)
    other = write_evaluation(tmp_path / "b", "initial", [1.1] * 5 + [1.2] * 19)
    interval = compared(one, other).win_rate.interval
    assert (interval.reliable, interval.note) == (False, "only 5 of 24 instructions tell the two apart")
    third = write_evaluation(tmp_path / "c", "initial", [1.1, 1.3] * 12)
    assert compared(one, third).win_rate.interval.reliable is True


def test_a_doubt_travels_into_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What speaks against one of two evaluations speaks against their difference, in the verdict's own line."""
    one = write_evaluation(tmp_path / "a", "iteration-1", [min(value + 0.1, 2) for value in MIXED])
    other = write_evaluation(tmp_path / "b", "initial", [*MIXED[:-1], None])
    result = run_command(monkeypatch, capfd, "eval", "--compare", one, other, "--allow-partial")
    assert "iteration-1 against initial: better (NOT to be relied on): " in result.out
    assert "NOT to be relied on: initial: partial: 1 of 240 judgements are missing or failed" in result.out


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": "judge-2"}, "judge: 'judge-1 (temperature=0)' there, 'judge-2 (temperature=0)' here"),
        ({"parameters": {}}, "judge: 'judge-1 (temperature=0)' there, 'judge-1' here"),
        ({"prompt_sha256": "e" * 64}, "prompt of the judge: 'aaaaaaaa' there, 'eeeeeeee' here"),
        ({"swap": True}, "orders: 'one' there, 'both' here"),
    ],
)
def test_scores_of_different_judges_are_not_compared(tmp_path: Path, changes: dict[str, object], line: str) -> None:
    """Another judge, other parameters, another prompt, or another order: refused, and said why."""
    one = write_evaluation(tmp_path / "a", "iteration-1", MIXED)
    other = write_evaluation(tmp_path / "b", "initial", MIXED, judge=JUDGE.model_copy(update=changes))
    with pytest.raises(ScoreError) as caught:
        compared(one, other)
    assert caught.value.problem == f"iteration-1 and initial can't be compared:\n  - {line}"


def test_scores_against_different_answers_are_not_compared(tmp_path: Path) -> None:
    """Another reference is refused by its name, and one of the same name by its texts."""
    one = write_evaluation(tmp_path / "a", "iteration-1", MIXED)
    other = write_evaluation(tmp_path / "b", "initial", MIXED, reference="gpt4")
    with pytest.raises(ScoreError, match="reference: 'initial' there, 'gpt4' here"):
        compared(one, other)
    third = write_evaluation(tmp_path / "c", "initial", MIXED, answer="another answer")
    with pytest.raises(ScoreError, match="compared with different answers to 'Instruction 0'"):
        compared(one, third)


def test_scores_on_different_instructions_are_not_compared(tmp_path: Path) -> None:
    """Another set is refused; one that lacks an instruction only with allow_partial."""
    one = write_evaluation(tmp_path / "a", "iteration-1", MIXED)
    other = write_evaluation(tmp_path / "b", "initial", MIXED, instructions="instructions-11111111")
    with pytest.raises(ScoreError, match="instructions: 'instructions-00000000' there, 'instructions-11111111' here"):
        compared(one, other)
    failed = write_evaluation(tmp_path / "c", "initial", [None, *MIXED[1:]])
    with pytest.raises(ScoreError) as caught:
        compared(one, failed)
    assert caught.value.problem == "1 instructions are judged for only one of iteration-1 and initial"
    assert compare_runs([one, failed], length_control=False, allow_partial=True)[0].instructions == 239


def test_a_run_means_its_last_iteration(tmp_path: Path) -> None:
    """Of a run with the initial model and two iterations the second is meant; a part of the run means itself."""
    root = tmp_path / "run" / "eval"
    for name, gain in (("initial", 0.0), ("iteration-1", 0.01), ("iteration-2", 0.03)):
        preferences = [value + gain for value in MIXED]
        write_evaluation(root / name / "instructions-00000000" / "judge-1-x", name, preferences)
    found = compared(tmp_path / "run", root / "initial")
    assert (found.first, found.second) == ("iteration-2", "initial")
    assert found.win_rate.interval.value == pytest.approx(3.0)


def test_two_judges_of_a_run_are_told_apart_by_what_they_are_compared_with(tmp_path: Path) -> None:
    """Where one model has evaluations by two judges, the one that fits the other side is meant, or it is an error."""
    other = JUDGE.model_copy(update={"model": "judge-2", "name": "judge-2"})
    for folder, judge in (("one", JUDGE), ("two", other)):
        write_evaluation(tmp_path / "run" / "eval" / "initial" / "set" / folder, "initial", MIXED, judge=judge)
    single = write_evaluation(tmp_path / "single", "iteration-1", MIXED, judge=other)
    assert compared(single, tmp_path / "run").second == "initial"
    with pytest.raises(RunError, match="one folder means several evaluations") as caught:
        compared(tmp_path / "run", tmp_path / "run")
    assert caught.value.todo == "name the judge's folders: runs/NAME/eval/MODEL/INSTRUCTIONS/JUDGE"


def test_a_folder_without_an_evaluation_is_an_error(tmp_path: Path) -> None:
    """No folder, an empty one, one without its rows, and one whose rows are not its record's."""
    one = write_evaluation(tmp_path / "a", "iteration-1", MIXED)
    with pytest.raises(RunError, match="no such folder"):
        compared(one, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no evaluation"):
        compared(one, tmp_path / "empty")
    other = write_evaluation(tmp_path / "b", "initial", MIXED)
    (other / "annotations.json").write_text((one / "annotations.json").read_text().replace("1.9", "null"))
    with pytest.raises(RunError, match="does not hold the 240 judgements of results.json"):
        compared(one, other)
    (other / "annotations.json").unlink()
    with pytest.raises(RunError, match="holds no annotations.json"):
        compared(one, other)


def test_an_iteration_is_compared_with_all_before_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Iteration 2 against the initial model and iteration 1, in this order.

    Other judges, other references and later iterations stay out, without a word.
    """
    root = tmp_path / "run" / "eval"
    folders = {}
    for name, gain in (("initial", 0.0), ("iteration-1", 0.01), ("iteration-2", 0.03), ("iteration-3", 0.04)):
        folders[name] = root / name / "instructions-00000000" / "judge-1-x"
        write_evaluation(folders[name], name, [value + gain for value in MIXED])
    foreign = JUDGE.model_copy(update={"model": "judge-2"})
    write_evaluation(root / "initial" / "instructions-00000000" / "judge-2-x", "initial", MIXED, judge=foreign)
    elsewhere = root / "initial" / "instructions-00000000" / "judge-1-y"
    write_evaluation(elsewhere, "initial", MIXED, reference="other", answer="other answer")
    record = read_record(folders["iteration-2"] / "results.json", EvalRecord)
    assert record is not None
    found = against_earlier(load(folders["iteration-2"], record), root, None)
    assert found == [
        "iteration-2 is better than initial: win rate +3.00 points (95%: +3.00 to +3.00, p < 0.0002)",
        "iteration-2 is better than iteration-1: win rate +2.00 points (95%: +2.00 to +2.00, p < 0.0002)",
    ]
    assert capsys.readouterr().err == ""
    # A run against itself is its last iteration against all before it, and a damaged one costs no other.
    compared(tmp_path / "run", tmp_path / "run")
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "minus" in line] == [
        f"iteration-3 minus {name}: {record.score}" for name in ("initial", "iteration-1", "iteration-2")
    ]
    (folders["initial"] / "annotations.json").unlink()
    left = against_earlier(load(folders["iteration-2"], record), root, None)
    assert left == found[1:]
    assert "not compared with an earlier model" in capsys.readouterr().err


def test_one_command_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`eval --compare A B` says in words whether A is better."""
    one = write_evaluation(tmp_path / "a", "iteration-1", [min(value + 0.1, 2) for value in MIXED])
    other = write_evaluation(tmp_path / "b", "initial", MIXED)
    result = run_command(monkeypatch, capfd, "eval", "--compare", one, other)
    assert (result.code, result.err) == (0, "")
    assert "iteration-1 minus initial: instructions-00000000 [reference=initial " in result.out
    assert "< 0.0002" in result.out
    assert "better" in result.out


@pytest.mark.slow
def test_real_models_are_compared_with_length_control(shared_data: Path, tmp_path: Path) -> None:
    """claude-2.1 is better than OpenHermes by both rates; its answers are shorter, so the controlled gain is larger."""
    data = shared_data / "alpaca_eval"
    gamed = data / "hub" / "df_gamed.csv"
    records = [
        score_annotations(data / "annotations" / f"{name}.json.xz", tmp_path / name, lc_data=gamed, bootstrap=100)
        for name in ("claude-2.1", "OpenHermes-2.5-Mistral-7B")
    ]
    [found] = compare_runs([tmp_path / "claude-2.1", tmp_path / "OpenHermes-2.5-Mistral-7B"], lc_data=gamed)
    for key in ("win_rate", "length_controlled_winrate"):
        one = getattr(found, key)
        assert one.interval.value == pytest.approx(getattr(records[0], key) - getattr(records[1], key), abs=1e-9)
        assert (one.verdict, one.interval.n) == ("better", 805)
    assert found.length_controlled_winrate is not None
    assert found.length_controlled_winrate.p_value == pytest.approx(2 / 1001)
