"""alpaca_eval's own arithmetic, and the only import of that package.

Importing it sets the root logger to INFO, reads a `.env` file, warns, and asks for the user's name; its regression
switches on scikit-learn's metadata routing. All of that is undone here, and nothing is written into its folder.

The length-controlled rate is alpaca_eval's (arXiv:2404.04475), by its own design matrix and its own regression. Only
the rows are placed by us: it takes a row's place in the file for its instruction's, so that one missing or moved row
gives every later one a wrong difficulty (a rate of 16.2 became 20.7 when the first of 805 rows was left out).
"""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kto_release.errors import ScoreError
from kto_release.evaluate.scoring.length_data import LcData

GLM = "length_controlled_v1"

Floats = npt.NDArray[np.float64]


class WinRates(NamedTuple):
    """alpaca_eval's `get_winrate`; rates in percent."""

    win_rate: float
    standard_error: float | None
    """Null with a single judgement."""
    discrete_win_rate: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int


class LengthControl(NamedTuple):
    """alpaca_eval's length-controlled fit of one model."""

    rate: float
    """length_controlled_winrate, in percent."""
    regularization: float
    """The C that its cross-validation chose."""
    coefficients: tuple[float, float, float]
    """Of tanh(length difference), difficulty, and the model itself."""


def win_rates(preferences: Sequence[float]) -> WinRates:
    """alpaca_eval's win rate of preferences in [1, 2] (1.5: a draw), for at least one of them."""
    with _contained():
        plain = _package("metrics").get_winrate([{"preference": value} for value in preferences])
    error = float(plain["standard_error"])
    return WinRates(
        win_rate=float(plain["win_rate"]),
        standard_error=error if np.isfinite(error) else None,
        discrete_win_rate=float(plain["discrete_win_rate"]),
        n_wins=int(plain["n_wins"]),
        n_wins_base=int(plain["n_wins_base"]),
        n_draws=int(plain["n_draws"]),
        n_total=int(plain["n_total"]),
    )


def length_controlled(preferences: Sequence[float], length_differences: Sequence[float], data: LcData) -> LengthControl:
    """alpaca_eval's length-controlled win rate of all 805 instructions, in their order.

    `length_differences` are characters of the reference's answer minus those of the model's, and not all equal.
    """
    import pandas as pd

    difference = pd.Series(length_differences, dtype=float)
    rows = pd.DataFrame(
        {
            "preference": np.asarray(preferences, float) - 1,
            "index": np.arange(len(difference)),
            "std_delta_len": difference / difference.std(),
            "instruction_difficulty": data.difficulty,
            "not_gamed_baseline": True,
        }
    )
    neutral = rows[["instruction_difficulty", "not_gamed_baseline"]].assign(std_delta_len=0)
    with _contained():
        glm = _package("metrics.glm_winrate")
        info = glm.GLM_INFO[GLM]
        together = pd.concat([data.gamed, rows], axis=0)
        train, test = glm.make_dmatrix_for_model(together, neutral, formula=info["formula"])
        model = glm.fit_LogisticRegressionCV(
            train,
            "preference",
            is_ytrue_proba=True,
            sample_weight=_weights(together["not_gamed_baseline"], info["regularize_to_baseline_lambda"]),
            **info["kwargs"],
        )
        rate = float(model.predict_proba(test)[:, 1].mean() * 100)
    first, second, third = (float(value) for value in model.coef_[0])
    return LengthControl(rate, float(np.ravel(model.C_)[0]), (first, second, third))


def _weights(not_gamed: Any, share: float) -> Any:
    """Weights of the rows: the model's count one, those of the two gamed baselines share `share`."""
    return not_gamed.astype(float) + (share * (~not_gamed)).astype(float) / 2


@cache
def _package(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(f"alpaca_eval.{name}")
    except ImportError as error:
        raise ScoreError(
            f"alpaca_eval can't be imported: {error}",
            expected="alpaca-eval 0.6.6 with setuptools below 82 and scikit-learn below 1.10",
            todo="pip install 'alpaca-eval==0.6.6' 'setuptools<82' 'scikit-learn<1.10'",
        ) from None


@contextmanager
def _contained() -> Iterator[None]:
    """Run alpaca_eval, and leave logging, warnings, scikit-learn's settings and the environment as they were."""
    import sklearn

    root = logging.getLogger()
    level, environment = root.level, dict(os.environ)
    # getpass.getuser() fails where the user id has no name (containers); it reads this variable first.
    os.environ.setdefault("LOGNAME", "kto-release")
    try:
        with warnings.catch_warnings(), sklearn.config_context():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
