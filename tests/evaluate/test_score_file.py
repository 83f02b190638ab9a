"""Recorded judgements: the leaderboard's own numbers, whatever the order of the rows, or an error."""

import csv
import gzip
import json
import lzma
import random
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run_command
from made_up import write_gamed

from kto_release.errors import DataError, KtoReleaseError, RecipeError, ScoreError
from kto_release.evaluate.score_file import score_annotations
from kto_release.evaluate.scoring.leaderboard import LEADERBOARD
from kto_release.judges.official import OFFICIAL_JUDGE, OFFICIAL_REFERENCE, alpaca_eval_folder
from kto_release.judges.rows import read_rows
from kto_release.records import EvalRecord

COMPLETE = ["FuseChat-Llama-3.2-1B-Instruct", "OpenHermes-2.5-Mistral-7B", "claude-2.1", "gemma-2b-it"]
INCOMPLETE = ["alpaca-7b_verbose", "gpt35_turbo_instruct"]
NOT_SCORES = {"finished", "environment"}

Rows = list[dict[str, Any]]


@pytest.fixture
def gamed(shared_data: Path) -> Path:
    return shared_data / "alpaca_eval" / "hub" / "df_gamed.csv"


@pytest.fixture
def recorded(shared_data: Path) -> Callable[[str], Path]:
    """Path of a model's recorded judgements."""
    return lambda model: shared_data / "alpaca_eval" / "annotations" / f"{model}.json.xz"


def load(path: Path) -> Rows:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        rows: Rows = json.load(file)
    return rows


def save(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def row(number: int, preference: Any = 1.25, **changes: Any) -> dict[str, Any]:
    """A row of an own set of instructions."""
    plain = {"instruction": f"Own instruction {number}", "output_1": "reference", "output_2": f"answer {number}"}
    return plain | {"preference": preference} | changes


def published(model: str) -> dict[str, str]:
    """The model's row in the leaderboard that the alpaca_eval package ships."""
    with (alpaca_eval_folder() / LEADERBOARD).open(encoding="utf-8") as file:
        return next(row for row in csv.DictReader(file) if row[""] == model)


def children_seconds() -> float:
    """Processor time of all child processes so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def scores_of(record: EvalRecord) -> dict[str, Any]:
    return record.model_dump(exclude=NOT_SCORES)


@pytest.mark.parametrize("model", COMPLETE + INCOMPLETE)
def test_scores_are_the_leaderboards(model: str, recorded: Callable[[str], Path], gamed: Path, tmp_path: Path) -> None:
    """Rates and standard error to 1e-9; length-controlled to 0.2, since the data for it is a stand-in here."""
    official = published(model)
    record = score_annotations(
        recorded(model), tmp_path, lc_data=gamed, allow_partial=model in INCOMPLETE, bootstrap=100
    )
    for name in ("win_rate", "standard_error", "discrete_win_rate"):
        assert getattr(record, name) == pytest.approx(float(official[name]), abs=1e-9)
    assert (record.n_total, record.n_missing) == (int(official["n_total"]), 805 - int(official["n_total"]))
    assert record.answers_by == model
    assert record.judge.official
    assert record.partial is (model in INCOMPLETE)
    if model in INCOMPLETE:
        assert record.length_controlled_winrate is None
    else:
        assert record.avg_length == int(official["avg_length"])
        assert record.length_controlled_winrate == pytest.approx(float(official["length_controlled_winrate"]), abs=0.2)
        assert "standard_error" not in record.intervals


@pytest.mark.slow
def test_one_command_scores_a_file(cli: Path, recorded: Callable[[str], Path], gamed: Path, tmp_path: Path) -> None:
    """`eval --annotations` writes results.json and the rows, in at most 15 seconds of a processor's time.

    By the clock it is as long on a machine with nothing else to do (5 to 6 s on two cores).
    """
    begin = children_seconds()
    command = [cli, "eval", "--annotations", recorded("claude-2.1"), "--lc-data", gamed, "--output", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert children_seconds() - begin < 15
    assert (result.returncode, result.stderr) == (0, "")
    assert "claude-2.1 against gpt4_1106_preview: AlpacaEval 2.0" in " ".join(result.stdout.split())
    assert (
        "AlpacaEval 2.0 [reference=gpt4_1106_preview, judge=weighted_alpaca_eval_gpt4_turbo, prompt=alpaca_eval"
        in result.stdout
    )
    plain = json.loads((tmp_path / "out" / "results.json").read_text())
    assert plain["length_controlled_winrate"] == 25.252255890584735
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "annotations.json",
        "report.html",
        "results.json",
    ]


@pytest.mark.slow
def test_shuffled_and_spaced_rows_give_the_same_scores_to_the_last_bit(
    recorded: Callable[[str], Path], gamed: Path, tmp_path: Path
) -> None:
    """Rows are placed by instruction: order and whitespace of the instructions change no number."""
    rows = load(recorded("gemma-2b-it"))
    original = score_annotations(save(tmp_path / "gemma.json", rows), tmp_path / "a", lc_data=gamed, bootstrap=100)
    random.Random(0).shuffle(rows)
    shuffled = score_annotations(save(tmp_path / "gemma.json", rows), tmp_path / "b", lc_data=gamed, bootstrap=100)
    assert scores_of(shuffled) == scores_of(original)
    assert (tmp_path / "a" / "annotations.json").read_bytes() == (tmp_path / "b" / "annotations.json").read_bytes()

    for number, one in enumerate(rows):
        words = one["instruction"].split()
        one["instruction"] = [" ".join(words), "\n".join(words), "  ".join(words) + "\t\n"][number % 3]
    spaced = score_annotations(save(tmp_path / "gemma.json", rows), tmp_path / "c", lc_data=gamed, bootstrap=100)
    texts = {"instructions_sha256", "reference_sha256"}
    assert {k: v for k, v in scores_of(spaced).items() if k not in texts} == {
        k: v for k, v in scores_of(original).items() if k not in texts
    }


@pytest.mark.slow
def test_its_own_annotations_give_the_same_scores_again(
    recorded: Callable[[str], Path], gamed: Path, tmp_path: Path
) -> None:
    """What the command writes is alpaca_eval's format: scored once more it gives the same record."""
    first = score_annotations(recorded("claude-2.1"), tmp_path / "a", lc_data=gamed, bootstrap=100)
    again = score_annotations(tmp_path / "a" / "annotations.json", tmp_path / "b", lc_data=gamed, bootstrap=100)
    assert scores_of(again) == scores_of(first)


def test_nothing_that_a_file_knows_is_lost(tmp_path: Path) -> None:
    """Orders, mass, failure, flags, price, time, the judge's words: scored and written, they are there as before.

    Judged in both orders, the first place preferred in each: 1.75 and 1.25 of the model make a bias of one quarter.
    """
    known = {
        "preferences": [1.25, 1.75],
        "answer_mass": 0.75,
        "flags": ["cut", "trained_on"],
        "tampered": "no letters",
        "price_per_example": 0.25,
        "time_per_example": 1.5,
        "raw_completion": {"reference_first": {"text": "half: \ud83d"}, "answer_first": "ä"},
        "sample": 0,
        "generator_2": "mine",
    }
    failed = {
        "generator_2": "mine",
        "preference": None,
        "failure": "the judge said neither",
        "preferences": [None, 1.75],
    }
    path = save(tmp_path / "own.json", [row(0, 1.5, **known), row(1, **failed)])
    first = score_annotations(path, tmp_path / "a", allow_partial=True)
    plain = json.loads((tmp_path / "a" / "annotations.json").read_text())
    assert {key: plain[0][key] for key in known} == known
    assert {key: plain[1][key] for key in failed} == failed
    assert (first.screening["cut"], first.screening["trained_on"]) == (1, 1)
    assert first.position_bias == pytest.approx(0.25)
    again = score_annotations(tmp_path / "a" / "annotations.json", tmp_path / "b", allow_partial=True)
    assert scores_of(again) == scores_of(first)
    assert (tmp_path / "b" / "annotations.json").read_bytes() == (tmp_path / "a" / "annotations.json").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"preferences": [1.5]}, "'preferences' is [1.5]"),
        ({"preferences": [1.5, 3]}, "'preferences': the preference is 3"),
        ({"answer_mass": 1.5}, "'answer_mass' is 1.5"),
        ({"answer_mass": True}, "'answer_mass' is True"),
        ({"flags": "cut"}, "'flags' is 'cut'"),
        ({"tampered": 1}, "'tampered' is 1"),
        ({"price_per_example": "free"}, "'price_per_example' is 'free'"),
    ],
)
def test_a_field_that_is_none_is_refused(wrong: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """What can't be read is named with its row; it is never dropped."""
    path = save(tmp_path / "own.json", [row(0), row(1, **wrong)])
    with pytest.raises(ScoreError) as caught:
        read_rows(path)
    assert caught.value.problem.startswith("own.json, row 2")
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda rows: rows[1:], "no judgement for 1 of 805 instructions: position 0"),
        (lambda rows: rows[:3] + rows[5:], "no judgement for 2 of 805 instructions: positions 3-4"),
        (lambda rows: rows[:7], "no judgement for 798 of 805 instructions: positions 7-804"),
        (lambda rows: [*rows, rows[9]], "instructions that are judged more than once: rows 10, 806"),
        (lambda rows: [*rows, rows[9] | {"instruction": rows[9]["instruction"] + "  "}], "rows 10, 806"),
        (lambda rows: [rows[0] | {"instruction": "Mine"}, *rows[1:]], "1 of 805 judged rows hold an instruction that"),
        (lambda rows: [rows[0] | {"preference": -1}, *rows[1:]], "row 1: the preference is -1; -1 is alpaca_eval's"),
        (lambda rows: [rows[0] | {"preference": 3}, *rows[1:]], "row 1: the preference is 3"),
        (lambda rows: [rows[0] | {"preference": None}, *rows[1:]], "failed judgements: 1 of 805"),
        (lambda rows: [rows[0] | {"output_2": None}, *rows[1:]], "no text under 'output_2': row 1 (1 in all)"),
        (lambda rows: [rows[0] | {"output_1": 7}, *rows[1:]], "no text under 'output_1': row 1 (1 in all)"),
        (lambda rows: [rows[0] | {"generator_2": "x"}, *rows[1:]], "more than one 'generator_2'"),
        (lambda rows: [rows[0] | {"annotator": "x"}, *rows[1:]], "more than one 'annotator'"),
    ],
)
def test_damaged_judgements_are_an_error_and_nothing_is_written(
    damage: Callable[[Rows], Rows], problem: str, recorded: Callable[[str], Path], gamed: Path, tmp_path: Path
) -> None:
    """What would have changed the score without a word stops the scoring instead."""
    path = save(tmp_path / "damaged.json", damage(load(recorded("OpenHermes-2.5-Mistral-7B"))))
    with pytest.raises(KtoReleaseError) as caught:
        score_annotations(path, tmp_path / "out", lc_data=gamed)
    assert problem in caught.value.problem
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_the_hub_no_score_is_half_made(
    recorded: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the data for length control can't be had, nothing is written; --no-lc scores without it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(KtoReleaseError, match="df_gamed.csv"):
        score_annotations(recorded("claude-2.1"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    record = score_annotations(recorded("claude-2.1"), tmp_path / "out", length_control=False, bootstrap=100)
    assert (record.length_controlled_winrate, record.no_length_control) == (
        None,
        "no data for length control was given",
    )
    assert list(record.intervals) == ["win_rate", "discrete_win_rate"]


def test_an_own_set_has_no_length_controlled_rate(tmp_path: Path) -> None:
    """Instructions that are not AlpacaEval's are scored by their win rate, even where data for it is given."""
    path = save(tmp_path / "own.json", [row(number) for number in range(30)])
    record = score_annotations(path, tmp_path / "out", lc_data=write_gamed(tmp_path / "df_gamed.csv"))
    assert (record.win_rate, record.length_controlled_winrate) == (25.0, None)
    assert (record.is_alpaca_eval, record.no_length_control) == (False, "the instructions are not AlpacaEval's")
    assert record.instructions.startswith("instructions-")
    assert record.lc_data_sha256 is None


def test_805_foreign_instructions_are_no_alpaca_eval(tmp_path: Path) -> None:
    """The number of rows makes no AlpacaEval: alpaca_eval itself would fit its difficulties to them."""
    path = save(tmp_path / "own.json", [row(n, 1 + n % 7 / 7, output_2="m" * (n % 9)) for n in range(805)])
    record = score_annotations(path, tmp_path / "out", lc_data=write_gamed(tmp_path / "df_gamed.csv"), bootstrap=100)
    assert (record.is_alpaca_eval, record.length_controlled_winrate) == (False, None)


def test_a_draw_may_be_written_as_zero_and_null_as_nan(tmp_path: Path) -> None:
    """alpaca_eval's two spellings of a draw are one half; pandas' spelling of null is a failure."""
    path = save(tmp_path / "own.json", [row(0, 0), row(1, 1.5), row(2, 2), row(3, float("nan"))])
    record = score_annotations(path, tmp_path / "out", allow_partial=True)
    assert (record.win_rate, record.n_draws, record.n_failed) == (pytest.approx(200 / 3), 2, 1)


def test_the_judge_is_named_by_the_rows_or_by_the_user_or_not_at_all(tmp_path: Path) -> None:
    """Rows that name no judge are judged by "recorded"; a name that contradicts the rows is refused."""
    silent = save(tmp_path / "silent.json", [row(0)])
    named = save(tmp_path / "named.json", [row(0, annotator="my-judge")])
    assert score_annotations(silent, tmp_path / "out").judge.name == "recorded"
    assert score_annotations(silent, tmp_path / "out", judge="gpt-9").judge.name == "gpt-9"
    record = score_annotations(named, tmp_path / "out")
    assert (record.judge.name, record.judge.official) == ("my-judge", False)
    with pytest.raises(RecipeError) as caught:
        score_annotations(named, tmp_path / "out", judge="gpt-9")
    assert caught.value.problem == "--judge 'gpt-9': these judgements name another judge, 'my-judge'"


def test_the_official_judge_is_official_only_on_alpaca_eval(tmp_path: Path) -> None:
    """Its name on other instructions is a name and no more."""
    path = save(tmp_path / "own.json", [row(0, annotator=OFFICIAL_JUDGE)])
    assert score_annotations(path, tmp_path / "out").judge.official is False


def test_files_may_be_compressed(tmp_path: Path) -> None:
    """.gz and .xz read like the plain file."""
    text = json.dumps([row(0), row(1, dataset="koala")])
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write(text)
    with lzma.open(tmp_path / "a.json.xz", "wt") as file:
        file.write(text)
    (tmp_path / "a.json").write_text(text)
    read = [read_rows(tmp_path / name) for name in ("a.json", "a.json.gz", "a.json.xz")]
    assert read[0] == read[1] == read[2]
    assert [one.dataset for one in read[0].rows] == [None, "koala"]


def test_a_file_is_read_whatever_its_name_and_its_first_mark(tmp_path: Path) -> None:
    """gzip under a plain name, and the mark that some editors put before the text."""
    text = json.dumps([row(0), row(1)]).encode()
    (tmp_path / "a.json").write_bytes(text)
    (tmp_path / "b.json").write_bytes(gzip.compress(text))
    (tmp_path / "c.json").write_bytes(b"\xef\xbb\xbf" + text)
    read = [read_rows(tmp_path / name) for name in ("a.json", "b.json", "c.json")]
    assert read[0] == read[1] == read[2]


UNREADABLE = {
    "cut": (gzip.compress(b"[]" * 999)[:30], "can't be read: Compressed file ended"),
    "damaged": (gzip.compress(b"[]")[:10] + b"\xff" * 20, "can't be read: Error -3"),
    "nested too deep": (b"[" * 100_000, "is no JSON: maximum recursion depth"),
    "half a JSON": (b'[{"instruction": "a', "is no JSON: Unterminated string"),
    "another coding": ("[]".encode("utf-16"), "can't be read: 'utf-8' codec"),
    "an object": (b"{}", "holds dict"),
    "nothing in it": (b"[]", "holds an empty list"),
    "no objects": (b"[[1]]", "not an object: row 1"),
    "no list of orders": (json.dumps([row(0, preferences=5)]).encode(), "'preferences' is 5"),
}


@pytest.mark.parametrize(("content", "problem"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_such_file_is_one_clear_error(content: bytes, problem: str, tmp_path: Path) -> None:
    """Whatever is wrong with a file, nothing is written."""
    (tmp_path / "own.json").write_bytes(content)
    with pytest.raises(KtoReleaseError, match=problem):
        score_annotations(tmp_path / "own.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_reference_in_the_models_place_is_refused(tmp_path: Path) -> None:
    """Its score would be the opposite one."""
    exchanged = row(0, generator_1="mine", generator_2=OFFICIAL_REFERENCE)
    with pytest.raises(ScoreError, match="'generator_2' is AlpacaEval's reference"):
        score_annotations(save(tmp_path / "own.json", [exchanged]), tmp_path / "out")


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    """JSON can spell half a surrogate pair; it can't be written to a file, and is refused."""
    path = tmp_path / "own.json"
    path.write_text(json.dumps([row(0, output_2="X")]).replace('"X"', '"\\ud83d"'))
    with pytest.raises(DataError, match="no text under 'output_2'"):
        score_annotations(path, tmp_path / "out")


def test_a_sample_is_a_whole_number(tmp_path: Path) -> None:
    """Several answers to an instruction are numbered from 0."""
    path = save(tmp_path / "own.json", [row(0, sample=0.5)])
    with pytest.raises(ScoreError, match="'sample' is 0.5"):
        score_annotations(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing to evaluate"),
        (["--annotations", "none.json"], "--annotations without --output"),
        (["recipe.yaml", "--output", "out", "--judge", "x"], "--output without --annotations or --compare"),
        (["recipe.yaml", "--sample", "9"], "--sample without --calibrate"),
        (["--calibrate", "anchors"], "--calibrate without a recipe"),
        (["recipe.yaml", "--calibrate", "anchors", "--model", "initial"], "--calibrate and --model at once"),
        (["recipe.yaml", "--calibrate", "anchors", "--no-lc"], "--calibrate and --no-lc at once"),
        (["recipe.yaml", "--model", "initial", "--outputs", "o.json"], "--model and --outputs at once"),
        (["--compare", "a", "b", "--set", "train.beta=1"], "--set without a recipe"),
        (["--annotations", "a.json", "--output", "o", "--model", "initial"], "--model without a recipe"),
        (["--annotations", "none.json", "--output", "out"], "no such file: 'none.json'"),
        (["recipe.yaml", "--annotations", "none.json"], "a recipe and --annotations at once"),
        (
            ["--annotations", "none.json", "--output", "out", "--no-lc", "--lc-data", "x.csv"],
            "--lc-data and --no-lc at once",
        ),
    ],
)
def test_a_wrong_command_is_one_clear_error(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Exit code 1, one message, and nothing written."""
    monkeypatch.chdir(tmp_path)
    result = run_command(monkeypatch, capfd, "eval", *arguments)
    assert result.code == 1
    assert result.err.splitlines()[0] == f"error: {problem}"
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A folder is needed, and no file is overwritten."""
    path = save(tmp_path / "own.json", [row(0)])
    for output in (path, path / "below"):
        with pytest.raises(KtoReleaseError, match=r"own\.json' is a file"):
            score_annotations(path, output)
    assert json.loads(path.read_text()) == [row(0)]
