"""The KTO loss and its statistics, as pure functions.

Source: Ethayarajh et al., KTO: Model Alignment as Prospect Theoretic Optimization, arXiv:2402.01306, Eq. 7 and 8.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Shape suffixes: B feedback (any subset of a global batch).


def rewards(policy_logps_B: Tensor, reference_logps_B: Tensor) -> Tensor:
    """r(x, y) = log pi(y|x) - log pi_ref(y|x), in nats, shape (B,)."""
    return policy_logps_B - reference_logps_B


def reference_point(kl_sum: float, count: int) -> float:
    """z: the mean reward of the KL partners over the global batch, not below 0.

    Args:
        kl_sum: sum of log pi(y'|x) - log pi_ref(y'|x) over the global batch, all ranks.
        count: size of the global batch.
    """
    return max(0.0, kl_sum / count)


def kto_losses(
    rewards_B: Tensor,
    desirable_B: Tensor,
    z: float,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """Eq. 7, per feedback: lambda_D (1 - sigma(beta (r - z))) or lambda_U (1 - sigma(beta (z - r))), shape (B,).

    Args:
        rewards_B: r(x, y), floating point; gradients flow through it.
        desirable_B: bool.
        z: the reference point; a number, so no gradient flows through it.
        beta: saturation of the value function.
        desirable_weight: lambda_D.
        undesirable_weight: lambda_U.
    """
    # new_tensor, since torch.where makes fp32 of Python numbers whatever the rewards are.
    sign_B = torch.where(desirable_B, rewards_B.new_tensor(1.0), rewards_B.new_tensor(-1.0))
    weight_B = torch.where(
        desirable_B, rewards_B.new_tensor(desirable_weight), rewards_B.new_tensor(undesirable_weight)
    )
    # 1 - sigma(x) = sigma(-x), which keeps its digits where sigma(x) is close to 1.
    return weight_B * torch.sigmoid(-beta * sign_B * (rewards_B - z))


class Weights(NamedTuple):
    """The two weights of the loss."""

    desirable: float
    undesirable: float


def balanced_weights(desirable: int, undesirable: int, undesirable_weight: float) -> Weights:
    """Eq. 8 at its lower end: lambda_D n_D = lambda_U n_U, so both kinds of feedback weigh the same in total.

    With one kind only there is nothing to balance: lambda_D is then 1.
    """
    if not desirable or not undesirable:
        return Weights(1.0, undesirable_weight)
    return Weights(undesirable_weight * undesirable / desirable, undesirable_weight)
