"""The loss, by values derived by hand from Eq. 7 and 8 of arXiv:2402.01306."""

import math

import pytest
import torch

from kto_release.train.loss import balanced_weights, kto_losses, reference_point, rewards

DESIRABLE = torch.tensor([True, False])


def losses(
    reward: float, z: float = 0.0, beta: float = 1.0, desirable: float = 1.0, undesirable: float = 1.0
) -> list[float]:
    reward_B = torch.tensor([reward, reward], dtype=torch.float64)
    return kto_losses(
        reward_B, DESIRABLE, z, beta=beta, desirable_weight=desirable, undesirable_weight=undesirable
    ).tolist()


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
    kto_losses(reward_B, DESIRABLE, 0.0, beta=2.0, desirable_weight=4 / 3, undesirable_weight=4 / 3).sum().backward()
    assert reward_B.grad.tolist() == pytest.approx([-0.5, 0.5], abs=1e-15)


def test_losses_keep_their_digits_where_sigma_is_close_to_one():
    """1 - sigma(40) is e^-40 to 17 digits; computed as 1 - sigma it would be 0."""
    assert losses(40.0)[0] == pytest.approx(math.exp(-40), rel=1e-12)


def test_reference_point_is_a_mean_that_is_not_negative():
    """z = max(0, mean): 6 over 4 is 1.5, and -6 over 4 is 0."""
    assert reference_point(6.0, 4) == 1.5
    assert reference_point(-6.0, 4) == 0.0


def test_rewards_are_differences_of_log_probabilities():
    """r = log pi - log pi_ref."""
    assert rewards(torch.tensor([-3.0]), torch.tensor([-5.0])).tolist() == [2.0]


@pytest.mark.parametrize(
    ("liked", "disliked", "expected"),
    [(100, 100, (1.0, 1.0)), (10, 40, (4.0, 1.0)), (40, 10, (0.25, 1.0)), (7, 0, (1.0, 1.0)), (0, 7, (1.0, 1.0))],
)
def test_balanced_weights(liked, disliked, expected):
    """Eq. 8 at its lower end: lambda_D n_D = lambda_U n_U. With one kind only there is nothing to balance."""
    assert balanced_weights(liked, disliked, 1.0) == expected


def test_balanced_weights_follow_the_undesirable_weight():
    """n_D = 10, n_U = 40, lambda_U = 0.5: lambda_D = 0.5 * 40 / 10 = 2."""
    assert balanced_weights(10, 40, 0.5) == (2.0, 0.5)
