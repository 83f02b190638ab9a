"""How sure a score is: bootstrap over instructions, with the length-controlled regression fitted again each time.

A resample draws instructions with replacement, each with its answer, judgement and difficulty. For the
length-controlled rate the scale of the length differences and the regression are computed anew; the strength of its
L1 penalty stays what cross-validation chose on the whole set (choosing it again gives the same spread within 2% in
40 times the time). alpaca_eval's own lc_standard_error is the spread of the fitted values, not the uncertainty of their
mean: an interval made of it covers about 60% where it says 95, so it is never shown.

Legend: B resamples, N instructions, M rows of the gamed baselines, K coefficients (length, difficulty, model).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kto_release.evaluate.scoring.length_data import GAMED_WEIGHT, LcData
from kto_release.records import Interval

LEVEL = 0.95
FEW = 200
"""Below so many instructions the bootstrap covers less than it says, 81 to 95% at 50, 57 to 95% at 20: see few.py."""
RARE = 20
"""So many wins and so many losses an interval needs: at 7 expected wins it covers 92%, at 2 it covers 81%."""
CHUNK = 20
"""Resamples that are fitted at once: small enough for the processor's cache, and for memory that is used again."""
TOLERANCE = 1e-5
"""Largest change of a coefficient at which a fit has converged: Newton's method squares the error each time, so about
1e-10 is left."""

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class LengthModel(NamedTuple):
    """One set of judgements as alpaca_eval's regression sees it, and where its fit ended."""

    preferences: Floats
    """(N,), in [0, 1]."""
    differences: Floats
    """(N,): characters of the reference's answer minus the model's."""
    difficulty: Floats
    """(N,)"""
    gamed: Floats
    """(M, 2): tanh of the length difference, and difficulty."""
    gamed_preferences: Floats
    """(M,), in [0, 1]."""
    regularization: float
    """scikit-learn's C."""
    start: Floats
    """(K,): coefficients of the whole set."""


def length_model(
    preferences: Floats, differences: Floats, data: LcData, regularization: float, start: Sequence[float]
) -> LengthModel:
    """The regression's input for all 805 instructions in order; `preferences` in [1, 2]."""
    gamed = data.gamed
    return LengthModel(
        np.asarray(preferences, float) - 1,
        np.asarray(differences, float),
        data.difficulty,
        np.column_stack([np.tanh(gamed["std_delta_len"].to_numpy(float)), gamed["instruction_difficulty"]]),
        gamed["preference"].to_numpy(float),
        regularization,
        np.asarray(start, float),
    )


def resamples(n: int, count: int, seed: int) -> Counts:
    """How often each of `n` instructions is drawn in each of `count` resamples: (B, N)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=count)


def win_rate_replicates(preferences: Floats, counts: Counts) -> Floats:
    """Win rate of each resample, in percent, (B,); `preferences` in [1, 2]."""
    rates: Floats = counts @ (np.asarray(preferences, float) - 1) / counts.sum(axis=1) * 100
    return rates


def length_controlled_replicates(model: LengthModel, weights: npt.ArrayLike) -> Floats:
    """Length-controlled win rate of each resample, in percent: (B,).

    `weights` is (B, N): how often each instruction counts. NaN where a resample has no length difference left.
    """
    weights_BN = np.asarray(weights, float)
    parts = [_chunk(model, weights_BN[first : first + CHUNK]) for first in range(0, len(weights_BN), CHUNK)]
    return np.concatenate(parts)


def percentile_interval(value: float, replicates: Floats, n: int, *, wins: float | None = None) -> Interval:
    """The 95% percentile bootstrap interval of a rate in percent, labelled where it is not to be relied on.

    `wins` is the expected number of wins among `n` instructions; null for a value that is no rate.
    """
    usable = replicates[np.isfinite(replicates)]
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(usable) else (value, value)
    notes = []
    if n < FEW:
        notes.append(f"fewer than {FEW} instructions")
    if wins is not None and min(wins, n - wins) < RARE:
        rare, what = (wins, "wins") if wins <= n / 2 else (n - wins, "losses")
        notes.append(f"fewer than {RARE} {what}: {rare:.0f} of {n}")
    if len(usable) < len(replicates):
        notes.append(f"{len(replicates) - len(usable)} of {len(replicates)} resamples could not be fitted")
    return Interval(
        value=value,
        low=float(min(low, value)),
        high=float(max(high, value)),
        n=n,
        level=LEVEL,
        method=f"percentile bootstrap over instructions, {len(replicates)} resamples",
        reliable=not notes,
        note="; ".join(notes) or None,
    )


def _chunk(model: LengthModel, weights_BN: Floats) -> Floats:
    lengths_BN, usable_B = _standardized(model.differences, weights_BN)
    coefficients_BK = np.tile(model.start, (len(weights_BN), 1))
    for _ in range(50):
        gradient_BK, hessian_BKK = _derivatives(model, weights_BN, lengths_BN, coefficients_BK)
        step_BK = _penalized_step(gradient_BK, hessian_BKK, coefficients_BK, 1 / model.regularization)
        size_B1 = np.abs(step_BK).max(axis=1, keepdims=True)
        coefficients_BK += step_BK / np.maximum(size_B1, 1)  # a full Newton step from far away would overshoot
        moving_B = size_B1[:, 0] > TOLERANCE
        if not moving_B[usable_B].any():
            break
    else:
        usable_B = usable_B & ~moving_B
    logits_BN = coefficients_BK[:, 1:2] * model.difficulty + coefficients_BK[:, 2:3]
    rates_B: Floats = (_logistic(logits_BN) * weights_BN).sum(axis=1) / weights_BN.sum(axis=1) * 100
    return np.where(usable_B, rates_B, np.nan)


def _standardized(differences: Floats, weights_BN: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The regression's length term, tanh(difference / the resample's standard deviation), and where that is above 0."""
    total_B1 = weights_BN.sum(axis=1, keepdims=True)
    mean_B1 = (weights_BN @ differences)[:, None] / total_B1
    squares_B1 = (weights_BN * (differences - mean_B1) ** 2).sum(axis=1, keepdims=True)
    deviation_B1 = np.sqrt(squares_B1 / (total_B1 - 1))
    usable_B = deviation_B1[:, 0] > 0
    return np.tanh(differences / np.where(deviation_B1 > 0, deviation_B1, 1)), usable_B


def _derivatives(
    model: LengthModel, weights_BN: Floats, lengths_BN: Floats, coefficients_BK: Floats
) -> tuple[Floats, Floats]:
    """Gradient (B, K) and Hessian (B, K, K) of the weighted log loss."""
    a_B1, b_B1, c_B1 = (coefficients_BK[:, k : k + 1] for k in range(3))
    d_N = model.difficulty
    p_BN = _logistic(a_B1 * lengths_BN + b_B1 * d_N + c_B1)
    slope_BN = weights_BN * (p_BN - model.preferences)
    curve_BN = weights_BN * p_BN * (1 - p_BN)
    long_BN = curve_BN * lengths_BN
    q_BM = _logistic(coefficients_BK[:, :2] @ model.gamed.T)
    gamed_slope_BM = GAMED_WEIGHT * (q_BM - model.gamed_preferences)
    gamed_curve_BM = GAMED_WEIGHT * q_BM * (1 - q_BM)
    t_M, g_M = model.gamed[:, 0], model.gamed[:, 1]

    gradient_BK = np.column_stack(
        [
            (slope_BN * lengths_BN).sum(axis=1) + gamed_slope_BM @ t_M,
            slope_BN @ d_N + gamed_slope_BM @ g_M,
            slope_BN.sum(axis=1),
        ]
    )
    hessian_BKK = np.empty((len(gradient_BK), 3, 3))
    hessian_BKK[:, 0, 0] = (long_BN * lengths_BN).sum(axis=1) + gamed_curve_BM @ t_M**2
    hessian_BKK[:, 0, 1] = hessian_BKK[:, 1, 0] = long_BN @ d_N + gamed_curve_BM @ (t_M * g_M)
    hessian_BKK[:, 0, 2] = hessian_BKK[:, 2, 0] = long_BN.sum(axis=1)
    hessian_BKK[:, 1, 1] = curve_BN @ d_N**2 + gamed_curve_BM @ g_M**2
    hessian_BKK[:, 1, 2] = hessian_BKK[:, 2, 1] = curve_BN @ d_N
    hessian_BKK[:, 2, 2] = curve_BN.sum(axis=1)
    return gradient_BK, hessian_BKK


def _penalized_step(gradient_BK: Floats, hessian_BKK: Floats, coefficients_BK: Floats, penalty: float) -> Floats:
    """The minimum of the quadratic model plus the L1 penalty.

    Where no coefficient changes its sign the penalty is linear, and the step is Newton's; else it takes descents.
    """
    signs_BK = np.sign(coefficients_BK)
    # A ridge far below the penalty keeps a singular Hessian solvable; it moves the way, not the end.
    curved_BKK = hessian_BKK + 1e-10 * np.eye(3)
    step_BK: Floats = -np.linalg.solve(curved_BKK, (gradient_BK + penalty * signs_BK)[..., None])[..., 0].astype(float)
    turned_B = (np.sign(coefficients_BK + step_BK) != signs_BK).any(axis=1)
    if turned_B.any():
        step_BK[turned_B] = _descents(gradient_BK[turned_B], curved_BKK[turned_B], coefficients_BK[turned_B], penalty)
    return step_BK


def _descents(gradient_BK: Floats, hessian_BKK: Floats, coefficients_BK: Floats, penalty: float) -> Floats:
    """The same minimum by coordinate descent."""
    step_BK = np.zeros_like(coefficients_BK)
    for _ in range(200):
        largest = 0.0
        for k in range(3):
            curve_B = hessian_BKK[:, k, k]
            slope_B = gradient_BK[:, k] + np.einsum("bj,bj->b", hessian_BKK[:, k], step_BK)
            current_B = coefficients_BK[:, k] + step_BK[:, k]
            target_B = current_B - slope_B / curve_B
            moved_B = np.sign(target_B) * np.maximum(np.abs(target_B) - penalty / curve_B, 0) - current_B
            step_BK[:, k] += moved_B
            largest = max(largest, float(np.abs(moved_B).max()))
        if largest < TOLERANCE**2:
            break
    return step_BK


def _logistic(logits: Floats) -> Floats:
    # The upper clip keeps exp from overflowing; beyond it the answer is 0 to machine precision anyway.
    result: Floats = 1 / (1 + np.exp(np.minimum(-logits, 700)))
    return result
