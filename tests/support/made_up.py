"""Judgements and length-control data that are made up, by the formula that alpaca_eval's regression assumes.

AlpacaEval's own rows can't be shipped, and a made-up population has a score that is known.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kto_release.evaluate.lc_data import COLUMNS, LcData, read_lc_data
from kto_release.evaluate.positions import COUNT

Floats = npt.NDArray[np.float64]
COEFFICIENTS = (-1.5, 0.9, -1.4)
"""Of tanh(length difference), difficulty and the model: a model of about 16%, near claude-2.1's."""


class Population(NamedTuple):
    """Instructions with a judged answer each."""

    preferences: Floats
    """In [1, 2]."""
    differences: Floats
    """Characters of the reference's answer minus the model's, whole numbers."""
    difficulty: Floats


def write_gamed(path: Path, seed: int = 0) -> Path:
    """A file of the form of df_gamed.csv: two gamed baselines, one longer and one shorter than the reference."""
    random = np.random.default_rng(seed)
    difficulty = random.normal(0, 0.6, COUNT)
    tables = []
    for name, shift in (("concise", 1.5), ("verbose", -1.5)):
        length = shift + random.normal(0, 0.5, COUNT)
        wins = logistic(-1.5 * np.tanh(length) + 0.3 * difficulty)
        table = {"model": name, "preference": wins, "index": range(COUNT), "std_delta_len": length}
        tables.append(pd.DataFrame(table | {"instruction_difficulty": difficulty, "not_gamed_baseline": False}))
    pd.concat(tables)[["model", *COLUMNS]].to_csv(path, index=False)
    return path


def gamed_data(folder: Path, seed: int = 0) -> LcData:
    """The same, read."""
    return read_lc_data(write_gamed(folder / "df_gamed.csv", seed))


def population(difficulty: Floats, seed: int, coefficients: tuple[float, float, float] = COEFFICIENTS) -> Population:
    """One judged answer for each difficulty. Preferences crowd at 1 and 2, as GPT-4's do."""
    random = np.random.default_rng(seed)
    differences = np.round(random.normal(300, 900, len(difficulty)))
    length, hard, model = coefficients
    wins = logistic(length * np.tanh(differences / differences.std(ddof=1)) + hard * difficulty + model)
    return Population(1 + random.beta(0.4 * wins, 0.4 * (1 - wins)), differences, difficulty)


def logistic(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))
