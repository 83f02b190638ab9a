"""The loss, by values derived by hand from Eq. 7 and 8 of arXiv:2402.01306."""

import math

import pytest
import torch

from kto_release.recipe import TrainSection
from kto_release.train.loss import Loss, loss_for, reference_point

DESIRABLE = torch.tensor([True, False])


def losses(
    reward: float, z: float = 0.0, beta: float = 1.0, desirable: float = 1.0, undesirable: float = 1.0
) -> list[float]:
    reward_B = torch.tensor([reward, reward], dtype=torch.float64)
    return Loss(beta, desirable, undesirable).of(reward_B, DESIRABLE, z).tolist()


def test_reward_of_ln_3():
    """With beta = 1, z = 0 and r = ln 3: sigma(ln 3) = 3/4.

    Desirable: 1 - sigma(r) = 1/4. Undesirable: 1 - sigma(-r) = sigma(r) = 3/4.
    """
    assert losses(math.log(3)) == pytest.approx([0.25, 0.75], abs=1e-15)


def test_policy_that_is_the_reference():
    """r = 0 and z = 0: sigma(0) = 1/2, so every loss is half its weight."""
    assert losses(0.0, desirable=1.5, undesirable=0.8) == [0.75, 0.4]


def test_reference_point_shifts_the_reward():
    """r = z gives 1/2 for both kinds whatever beta is; r - z = ln 3 / beta gives 1/4 and 3/4."""
    assert losses(2.5, z=2.5, beta=0.1) == [0.5, 0.5]
    assert losses(2.5 + math.log(3) / 0.1, z=2.5, beta=0.1) == pytest.approx([0.25, 0.75], abs=1e-14)


def test_gradient_has_the_size_of_the_formula():
    """d loss / d r = -/+ lambda beta sigma(x) (1 - sigma(x)); at x = ln 3, beta = 2, lambda = 4/3 it is -/+ 1/2.

    4/3 * 2 * 3/4 * 1/4 = 1/2: down for the desirable one, up for the undesirable one.
    """
    reward_B = torch.full((2,), math.log(3) / 2, dtype=torch.float64, requires_grad=True)
    Loss(2.0, 4 / 3, 4 / 3).of(reward_B, DESIRABLE, 0.0).sum().backward()
    assert reward_B.grad.tolist() == pytest.approx([-0.5, 0.5], abs=1e-15)


def test_losses_keep_their_digits_where_sigma_is_close_to_one():
    """1 - sigma(40) is e^-40 to 17 digits; computed as 1 - sigma it would be 0."""
    assert losses(40.0)[0] == pytest.approx(math.exp(-40), rel=1e-12)


def test_reference_point_is_not_negative():
    """z = max(0, mean)."""
    assert (reference_point(1.5), reference_point(-1.5)) == (1.5, 0.0)


@pytest.mark.parametrize(
    ("desirable", "undesirable", "expected"),
    [(100, 100, 1.0), (10, 40, 4.0), (40, 10, 0.25), (7, 0, 1.0), (0, 7, 1.0)],
)
def test_balanced_weights(desirable, undesirable, expected):
    """Eq. 8 at its lower end: lambda_D n_D = lambda_U n_U. With one kind only there is nothing to balance."""
    assert loss_for(TrainSection(beta=0.2), desirable, undesirable) == (0.2, expected, 1.0)


def test_balanced_weights_follow_the_undesirable_weight():
    """n_D = 10, n_U = 40, lambda_U = 0.5: lambda_D = 0.5 * 40 / 10 = 2."""
    assert loss_for(TrainSection(undesirable_weight=0.5), 10, 40) == (0.1, 2.0, 0.5)


def test_a_stated_weight_is_taken_as_it_is():
    """Whatever the feedback: 3, and not what Eq. 8 would say."""
    assert loss_for(TrainSection(desirable_weight=3.0, undesirable_weight=0.5), 10, 40) == (0.1, 3.0, 0.5)
