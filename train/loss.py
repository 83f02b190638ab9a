"""The KTO loss, as pure functions.

Source: Ethayarajh et al., KTO: Model Alignment as Prospect Theoretic Optimization, arXiv:2402.01306, Eq. 7 and 8.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kto_release.recipe import TrainSection

# Shape suffixes: B feedback (any subset of a global batch).


def reference_point(kl: float) -> float:
    """z: the mean reward of the KL partners over the global batch, all ranks, where it is above 0; else 0."""
    return max(0.0, kl)


class Loss(NamedTuple):
    """Eq. 7 with its constants."""

    beta: float
    """Saturation of the value function."""
    desirable: float
    """lambda_D."""
    undesirable: float
    """lambda_U."""

    def of(self, rewards_B: Tensor, desirable_B: Tensor, z: float) -> Tensor:
        """Per feedback: lambda_D (1 - sigma(beta (r - z))) or lambda_U (1 - sigma(beta (z - r))), shape (B,).

        Args:
            rewards_B: r(x, y) = log pi(y|x) - log pi_ref(y|x), in nats, floating point; gradients flow through it.
            desirable_B: bool.
            z: the reference point; a number, so no gradient flows through it.
        """
        # new_tensor, since torch.where makes fp32 of Python numbers whatever the rewards are.
        sign_B = torch.where(desirable_B, rewards_B.new_tensor(1.0), rewards_B.new_tensor(-1.0))
        weight_B = torch.where(
            desirable_B, rewards_B.new_tensor(self.desirable), rewards_B.new_tensor(self.undesirable)
        )
        # 1 - sigma(x) = sigma(-x), which keeps its digits where sigma(x) is close to 1.
        return weight_B * torch.sigmoid(-self.beta * sign_B * (rewards_B - z))


def loss_for(train: TrainSection, desirable: int, undesirable: int) -> Loss:
    """The recipe's loss for so much feedback of each kind.

    A weight of "auto" is Eq. 8 at its lower end: lambda_D n_D = lambda_U n_U, so both kinds weigh the same in total.
    With one kind only there is nothing to balance: lambda_D is then 1.
    """
    weight = train.desirable_weight
    if weight == "auto":
        weight = train.undesirable_weight * undesirable / desirable if desirable and undesirable else 1.0
    return Loss(train.beta, weight, train.undesirable_weight)
