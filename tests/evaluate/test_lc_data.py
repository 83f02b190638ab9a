"""The data for length control is what alpaca_eval takes it for, or it is refused."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from made_up import write_gamed

from kto_release.errors import DataError, HubError
from kto_release.evaluate.scoring.length_data import COLUMNS, fetch_lc_data, read_lc_data


def test_difficulty_is_by_position_and_the_digest_is_of_the_file(tmp_path: Path) -> None:
    """The first baseline's rows give the 805 difficulties; a made-up file is not the official one."""
    path = write_gamed(tmp_path / "df_gamed.csv")
    data = read_lc_data(path)
    table = pd.read_csv(path)
    assert data.difficulty.tolist() == table["instruction_difficulty"].tolist()[:805]
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.official is False
    assert list(data.gamed.columns) == COLUMNS


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """The path that was given is in the message."""
    path = tmp_path / "none.csv"
    with pytest.raises(DataError) as caught:
        read_lc_data(path)
    assert str(caught.value) == f"no such file: {str(path)!r}\n  expected: alpaca_eval's df_gamed.csv"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda table: table.drop(columns=["std_delta_len"]), "no column 'std_delta_len'"),
        (lambda table: table.sample(frac=1, random_state=0), "positions that are not 0 to 804 in order"),
        (lambda table: table[table["index"] != 3], "positions that are not 0 to 804 in order"),
        (lambda table: table.assign(preference=table["preference"] + 1), "a preference outside [0, 1]"),
        (lambda table: table.assign(not_gamed_baseline=True), "not_gamed_baseline is not False everywhere"),
        (lambda table: table.assign(std_delta_len="long"), "values that are no numbers"),
        (lambda table: table.assign(instruction_difficulty=float("nan")), "values that are no numbers"),
    ],
)
def test_a_file_that_would_give_another_score_is_refused(tmp_path: Path, damage: object, problem: str) -> None:
    """Missing columns, moved or missing rows, and values out of range are one clear error each."""
    path = write_gamed(tmp_path / "df_gamed.csv")
    damage(pd.read_csv(path)).to_csv(path, index=False)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        read_lc_data(path)
    assert caught.value.problem == f"{str(path)!r} can't control for length: {problem}"
    assert caught.value.todo == "leave out --lc-data to take it from the Hub, or score without it: --no-lc"


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """An empty file is no table."""
    path = tmp_path / "df_gamed.csv"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="can't control for length"):
        read_lc_data(path)


def test_without_the_hub_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the Hub can't be reached, nothing is scored, and the message says which options do without it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else the client tries for 20 seconds
    with pytest.raises(HubError) as caught:
        fetch_lc_data()
    assert caught.value.todo == "connect to the Hub once, or give --lc-data FILE, or score without it: --no-lc"
