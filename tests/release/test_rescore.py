"""Judgements as a release carries them, and the scores that they give again."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from run_builder import build_run, write_evaluation

from kto_release.digests import file_sha256
from kto_release.errors import RunError, ScoreError
from kto_release.files import read_record
from kto_release.judges.rows import read_rows, write_rows
from kto_release.records import EvalRecord
from kto_release.release.rescore import read_jsonl, released, rescore, write_jsonl


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, EvalRecord]:
    """Folder and record of an evaluation: 12 of 20 answers win."""
    run = build_run(tmp_path_factory.mktemp("run"), tiny_model, iterations=1, evaluated=False)
    folder = write_evaluation(run, run.iteration_records()[0].model, win_rate=60.0)
    record = read_record(folder / "results.json", EvalRecord)
    assert record is not None
    return folder, record


def test_rows_hold_numbers_and_hashes_only(evaluated: tuple[Path, EvalRecord]) -> None:
    """Position, lengths in characters, hash and preference: no instruction and no answer."""
    rows = released(*evaluated)
    assert (rows[3].position, rows[3].preference) == (3, 2.0)
    assert (rows[3].answer_length, rows[3].reference_length) == (len("iteration-1: 3"), len("initial: 3"))
    assert len({row.instruction_sha256 for row in rows}) == 20
    text = write_jsonl(rows)
    assert "plus" not in text
    assert "initial" not in text


def test_written_rows_read_back(evaluated: tuple[Path, EvalRecord], tmp_path: Path) -> None:
    """One line for each judgement, and the same again."""
    rows = released(*evaluated)
    path = tmp_path / "x.jsonl"
    path.write_text(write_jsonl(rows))
    assert read_jsonl(path) == rows


def test_the_win_rate_comes_again(evaluated: tuple[Path, EvalRecord]) -> None:
    """12 wins (2) and 8 losses (1) of 20: 60%, in whatever order the rows come."""
    rows = released(*evaluated)
    random.Random(0).shuffle(rows)
    assert rescore(rows, evaluated[1], None) == (60.0, None, None)


def test_samples_of_one_instruction_count_as_one(evaluated: tuple[Path, EvalRecord]) -> None:
    """Two answers to an instruction are one observation, their mean.

    Of 20 instructions: the first has a win and a loss, mean 1.5; 11 others win, 8 lose: (0.5 + 11) / 20 = 57.5%.
    """
    rows, record = released(*evaluated)[:], evaluated[1].model_copy(update={"n_total": 21})
    rows.append(rows[0].model_copy(update={"sample": 1, "preference": 1.0}))
    assert rescore(rows, record, None).win_rate == pytest.approx(57.5, abs=1e-12)


def test_failed_judgements_are_kept_and_not_scored(evaluated: tuple[Path, EvalRecord]) -> None:
    """A null preference travels as null; the count of those scored must be the record's."""
    rows, record = released(*evaluated), evaluated[1]
    rows[0] = rows[0].model_copy(update={"preference": None})
    with pytest.raises(ScoreError, match="19 judgements are scored, and the record has 20"):
        rescore(rows, record, None)
    assert rescore(rows, record.model_copy(update={"n_total": 19}), None).win_rate == pytest.approx(1100 / 19)


def test_a_damaged_file_is_named(evaluated: tuple[Path, EvalRecord], tmp_path: Path) -> None:
    """Judgements that are gone, torn, or not AlpacaEval's where the record says so, are an error of the run."""
    folder, record = evaluated
    with pytest.raises(RunError, match=r"no such file: .*annotations\.json"):
        released(tmp_path, record)
    (tmp_path / "annotations.json").write_text(json.dumps([{"instruction": "a"}]))
    with pytest.raises(RunError, match=r"no text under 'output_1': row 1 \(1 in all\)"):
        released(tmp_path, record)
    with pytest.raises(RunError, match=r"annotations\.json', row 1: an instruction that is not AlpacaEval's"):
        released(folder, record.model_copy(update={"is_alpaca_eval": True}))


def test_what_is_flagged_or_tampered_with_is_released_so(evaluated: tuple[Path, EvalRecord], tmp_path: Path) -> None:
    """A kind of screening, or a reason to think that the judge's answer was tampered with: either flags the row."""
    judged = read_rows(evaluated[0] / "annotations.json")
    rows = list(judged.rows)
    rows[2] = rows[2]._replace(flags=("cut",))
    rows[5] = rows[5]._replace(tampered="the letters are not the judge's")
    write_rows(tmp_path / "annotations.json", judged._replace(rows=rows))
    assert [row.position for row in released(tmp_path, evaluated[1]) if row.flagged] == [2, 5]
    assert not any(row.flagged for row in released(*evaluated))


def test_everything_known_of_a_judgement_is_released(evaluated: tuple[Path, EvalRecord]) -> None:
    """Both orders and the mass on the letters, and the whole sha256 of the instruction's text."""
    row = released(*evaluated)[3]
    assert (row.preferences, row.answer_mass, row.sample) == ([2.0, 2.0], 0.15, 0)
    text = read_rows(evaluated[0] / "annotations.json").rows[3].instruction
    assert row.instruction_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_row_of_another_instruction_is_not_scored(evaluated: tuple[Path, EvalRecord]) -> None:
    """In a set of one's own, rows at one position hold one hash; AlpacaEval's positions have theirs on file."""
    rows, record = released(*evaluated), evaluated[1]
    rows.append(rows[0].model_copy(update={"sample": 1, "instruction_sha256": "f" * 64}))
    with pytest.raises(ScoreError, match="judgement 21 is not of the instruction at position 0: sha256 f{16}…, not"):
        rescore(rows, record.model_copy(update={"n_total": 21}), None)
    with pytest.raises(ScoreError, match="judgement 1 is not of the instruction at position 0"):
        rescore(rows[:20], record.model_copy(update={"is_alpaca_eval": True}), None)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["claude-2.1", "gemma-2b-it"])
def test_alpaca_eval_scores_come_again(shared_data: Path, tmp_path: Path, model: str) -> None:
    """From the stripped judgements of AlpacaEval's 805 instructions: win rate and length-controlled rate to 1e-9.

    They are placed by position, so their order does not matter; and none of the texts is in them.
    """
    from kto_release.evaluate.score_file import score_annotations

    source = shared_data / "alpaca_eval" / "annotations" / f"{model}.json.xz"
    data = shared_data / "alpaca_eval" / "hub" / "df_gamed.csv"
    record = score_annotations(source, tmp_path, lc_data=data, bootstrap=100)
    rows = released(tmp_path, record)
    assert sorted(row.position for row in rows) == list(range(805))
    random.Random(1).shuffle(rows)
    again = rescore(rows, record, data)
    assert record.length_controlled_winrate is not None
    assert again.win_rate == pytest.approx(record.win_rate, abs=1e-9)
    assert again.length_controlled_winrate == pytest.approx(record.length_controlled_winrate, abs=1e-9)
    text = write_jsonl(rows)
    assert not any(row.instruction[:40] in text for row in read_rows(source).rows)


@pytest.mark.slow
def test_without_the_data_for_length_control(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where AlpacaEval's data can't be had, or is another file, the win rate is checked and the rest is said."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    from kto_release.evaluate.score_file import score_annotations

    source = shared_data / "alpaca_eval" / "annotations" / "claude-2.1.json.xz"
    data = shared_data / "alpaca_eval" / "hub" / "df_gamed.csv"
    record = score_annotations(source, tmp_path, lc_data=data, bootstrap=100)
    rows = released(tmp_path, record)
    there = rescore(rows, record, None)
    assert there.length_controlled_winrate is None
    assert there.no_length_control is not None
    other = tmp_path / "other.csv"
    other.write_bytes(data.read_bytes() + b"\n")
    assert rescore(rows, record, other).no_length_control == (
        "this data for length control is not what was scored with (sha256 "
        + file_sha256(other)[:12]
        + f"…, not {str(record.lc_data_sha256)[:12]}…)"
    )
