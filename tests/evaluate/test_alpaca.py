"""Win rates are alpaca_eval's own, and using it leaves no trace."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import gamed_data, population, write_gamed

from kto_release.evaluate.scoring import alpaca
from kto_release.judges.official import alpaca_eval_folder


def test_win_rates_by_hand() -> None:
    """Preferences 1, 2, 1.5 (a draw) and 1.25 are 0, 1, 1/2 and 1/4.

    Their mean is 43.75%; their variance is (0.4375² + 0.5625² + 0.0625² + 0.1875²) / 3 = 0.546875 / 3, so the standard
    error is √(0.546875 / 12) = 21.348%. Rounded they are a loss, a win, a draw and a loss: 37.5%.
    """
    rates = alpaca.win_rates([1.0, 2.0, 1.5, 1.25])
    assert rates.win_rate == 43.75
    assert rates.standard_error == pytest.approx(100 * (0.546875 / 12) ** 0.5, rel=1e-12)
    assert rates.discrete_win_rate == 37.5
    assert (rates.n_wins, rates.n_wins_base, rates.n_draws, rates.n_total) == (1, 2, 1, 4)


def test_one_judgement_has_no_standard_error() -> None:
    """A single value says nothing about its spread."""
    rates = alpaca.win_rates([2.0])
    assert (rates.win_rate, rates.standard_error) == (100.0, None)


@pytest.mark.slow
def test_the_length_controlled_rate_is_the_packages_to_the_last_bit(tmp_path: Path) -> None:
    """alpaca_eval's own function, fed by a Hub cache that holds the same made-up data, gives the same number."""
    data = gamed_data(tmp_path)
    made = population(data.difficulty, seed=11)
    lengths = made.differences.astype(int)
    rows = [
        {
            "output_1": "r" * (10_000 + int(length)),
            "output_2": "m" * 10_000,
            "generator_1": "reference",
            "generator_2": "model",
            "annotator": "judge",
            "preference": float(preference),
        }
        for preference, length in zip(made.preferences, lengths, strict=True)
    ]
    cache = tmp_path / "cache" / "datasets--tatsu-lab--alpaca_eval"
    revision = "0" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(revision)
    (cache / "snapshots" / revision).mkdir(parents=True)
    write_gamed(cache / "snapshots" / revision / "df_gamed.csv")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    program = (
        "import json, sys, alpaca_eval\n"
        "from alpaca_eval.metrics import get_length_controlled_winrate\n"
        f"alpaca_eval.constants.DEFAULT_CACHE_DIR = {str(tmp_path / 'cache')!r}\n"
        f"rows = json.load(open({str(tmp_path / 'rows.json')!r}))\n"
        "print(repr(float(get_length_controlled_winrate(rows, save_weights_dir=None)['length_controlled_winrate'])))\n"
    )
    theirs = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    ours = alpaca.length_controlled(made.preferences.tolist(), lengths.tolist(), data)
    assert ours.rate == float(theirs.stdout)


@pytest.mark.slow
def test_importing_and_fitting_leave_no_trace(tmp_path: Path) -> None:
    """Logging, warnings, scikit-learn's settings and the environment are as before, and nothing is printed."""
    gamed = write_gamed(tmp_path / "df_gamed.csv")
    program = f"""
import logging, os, pathlib, warnings
import sklearn
from kto_release.evaluate.scoring import alpaca
from kto_release.evaluate.scoring.length_data import read_lc_data
from kto_release.judges.official import alpaca_eval_folder
def state():
    root = logging.getLogger()
    return root.level, list(root.handlers), list(warnings.filters), sklearn.get_config(), dict(os.environ)
data = read_lc_data(pathlib.Path({str(gamed)!r}))
alpaca_eval_folder()
before = state()
preferences = [1 + (7 * i % 11) / 10 for i in range(805)]
alpaca.win_rates(preferences)
alpaca.length_controlled(preferences, [i % 50 for i in range(805)], data)
print(before == state(), end="")
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("USER", "LOGNAME")}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert (result.stdout, result.stderr) == ("True", "")


def test_nothing_is_written_into_the_installed_package(tmp_path: Path) -> None:
    """Scoring leaves every file of alpaca_eval's folder as it was, and adds none."""
    data = gamed_data(tmp_path)
    made = population(data.difficulty, seed=12)
    before = folder_digest(alpaca_eval_folder())
    alpaca.win_rates(made.preferences.tolist())
    alpaca.length_controlled(made.preferences.tolist(), made.differences.tolist(), data)
    assert folder_digest(alpaca_eval_folder()) == before


def folder_digest(folder: Path) -> dict[str, str]:
    """sha256 of every file but Python's own bytecode."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
