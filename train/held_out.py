"""What held-out feedback says of a model: whether it moved towards the answers that people want.

The reward of an answer is log pi - log pi_initial, in nats. Pairs of one prompt are compared with each other
(preference accuracy); thumbs, which have no partner, are compared over all prompts (AUC).
"""

import math

import numpy as np
from numpy.typing import NDArray

from kto_release.records import Interval, Separation
from kto_release.train.tokens import Tokens

FEWEST = 30
"""Answers of either label below which an AUC is not measured: its interval would be half as wide as its range."""
BINS = 5
"""Of answer lengths, with as many answers in each."""


def preference_accuracy(tokens: Tokens, rewards_F: NDArray[np.float64]) -> Interval | None:
    """Share of (desirable, undesirable) pairs of one prompt whose desirable answer has the higher reward.

    With Wilson's 95% interval; None where there is no such pair.
    """
    from scipy.stats import binomtest  # slow to import

    right = pairs = prompts = 0
    for prompt in range(tokens.facts.prompts):
        mine = tokens.prompt_F == prompt
        wanted, unwanted = rewards_F[mine & tokens.desirable_F], rewards_F[mine & ~tokens.desirable_F]
        right += int((wanted[:, None] > unwanted[None, :]).sum())
        pairs += len(wanted) * len(unwanted)
        prompts += bool(len(wanted) * len(unwanted))
    if not pairs:
        return None
    bounds = binomtest(right, pairs).proportion_ci(method="wilson")
    return Interval(
        value=right / pairs,
        low=float(bounds.low),
        high=float(bounds.high),
        n=pairs,
        method="Wilson score interval over pairs",
        note=None
        if prompts == pairs
        else f"{pairs} pairs of {prompts} prompts: pairs of one prompt are not independent",
    )


def separation(tokens: Tokens, rewards_F: NDArray[np.float64]) -> Separation:
    """How well the reward tells desirable answers from undesirable ones, over all prompts."""
    desirable_F = tokens.desirable_F
    counts = int(desirable_F.sum()), int((~desirable_F).sum())
    by_user = bool((tokens.user_F >= 0).any())
    # Who is not known is taken for a user of their own.
    unknown_F = tokens.user_F < 0
    cluster_F = np.where(unknown_F, tokens.user_F.max(initial=-1) + 1 + np.cumsum(unknown_F), tokens.user_F)
    groups_F = cluster_F if by_user else tokens.prompt_F
    lengths_F = np.array([len(tokens.completion(feedback)) for feedback in range(len(tokens))], dtype=np.float64)
    enough = min(counts) >= FEWEST
    return Separation(
        auc=auc_interval(rewards_F, desirable_F, groups_F, by_user=by_user) if enough else None,
        length_auc=auc(lengths_F, desirable_F) if enough else None,
        within_lengths=_within(rewards_F, desirable_F, lengths_F) if enough else None,
        desirable=counts[0],
        undesirable=counts[1],
    )


def auc(values_F: NDArray[np.float64], desirable_F: NDArray[np.bool_]) -> float:
    """Probability that a desirable answer has the higher value than an undesirable one; ties count one half."""
    return float(_placements(values_F, desirable_F)[desirable_F].mean())


def auc_interval(
    values_F: NDArray[np.float64], desirable_F: NDArray[np.bool_], cluster_F: NDArray[np.int64], *, by_user: bool
) -> Interval:
    """The AUC with a 95% interval for answers that come in clusters: of one user, or to one prompt.

    Newcombe's method 5 (Statistics in Medicine 25, 2006: 559), which keeps its level near 0 and 1 too, with its
    variance taken as many times as Obuchowski's of clustered answers (Biometrics 53, 1997: 567) is DeLong's of
    independent ones, and never less than once; Student's t of as many degrees of freedom as there are clusters but one.
    """
    from scipy.stats import t as student  # slow to import

    value = auc(values_F, desirable_F)
    effect = _design_effect(_placements(values_F, desirable_F), desirable_F, cluster_F, value)
    m, n = int(desirable_F.sum()), int((~desirable_F).sum())
    clusters = len(np.unique(cluster_F))
    width = float(student.ppf(0.975, max(1, clusters - 1))) * math.sqrt(effect)
    return Interval(
        value=value,
        low=_bound(value, m, n, width, 0.0),
        high=_bound(value, m, n, width, 1.0),
        n=m + n,
        method=f"Newcombe's method 5, clustered by {'user' if by_user else 'prompt'} ({clusters})",
    )


def _placements(values_F: NDArray[np.float64], desirable_F: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each answer the share of the other label's that it stands on the right side of; ties count one half."""
    found = np.empty(len(values_F))
    for label in (True, False):
        others = np.sort(values_F[desirable_F != label])
        mine = values_F[desirable_F == label]
        below = (np.searchsorted(others, mine, "left") + np.searchsorted(others, mine, "right")) / (2 * len(others))
        found[desirable_F == label] = below if label else 1 - below
    return found


def _design_effect(
    placements_F: NDArray[np.float64], desirable_F: NDArray[np.bool_], cluster_F: NDArray[np.int64], value: float
) -> float:
    """Variance of the AUC of clustered answers, over that of independent ones; at least 1."""
    clusters, number_F = np.unique(cluster_F, return_inverse=True)
    if len(clusters) < 2:
        return 1.0
    sums = []
    independent = 0.0
    for label in (True, False):
        mine = desirable_F == label
        off = placements_F[mine] - value
        independent += float(off @ off) / (len(off) * max(1, len(off) - 1))
        sums.append(np.bincount(number_F[mine], weights=off, minlength=len(clusters)) / len(off))
    total = sums[0] + sums[1]
    clustered = float(total @ total) * len(clusters) / (len(clusters) - 1)
    return max(1.0, clustered / independent) if independent > 0 else 1.0


def _bound(value: float, m: int, n: int, width: float, end: float) -> float:
    """The AUC between `value` and `end` from which `value` is just `width` standard errors away."""
    inside, outside = value, end
    for _ in range(60):
        middle = (inside + outside) / 2
        mean = (m + n) / 2 - 1
        spread = 1 + mean * ((1 - middle) / (2 - middle) + middle / (1 + middle))
        error = math.sqrt(middle * (1 - middle) * spread / (m * n))
        inside, outside = (middle, outside) if abs(middle - value) <= width * error else (inside, middle)
    return inside if abs(inside - end) > 1e-9 else end


def _within(
    rewards_F: NDArray[np.float64], desirable_F: NDArray[np.bool_], lengths_F: NDArray[np.float64]
) -> float | None:
    """The AUC among answers of like length: that of each fifth of the lengths, weighted by its pairs."""
    edges = np.quantile(lengths_F, np.linspace(0, 1, BINS + 1)[1:-1])
    bin_F = np.searchsorted(edges, lengths_F, "right")
    right = pairs = 0.0
    for number in range(BINS):
        mine = bin_F == number
        wanted = int((mine & desirable_F).sum())
        count = wanted * (int(mine.sum()) - wanted)
        if count:
            right += count * auc(rewards_F[mine], desirable_F[mine])
            pairs += count
    return right / pairs if pairs else None
