"""Stochastic rounding: unbiased, repeatable, and exact where nothing is to be rounded."""

import hashlib
import math

import pytest
import torch

from kto_release.rounding import CHUNK, stochastic

DTYPES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("to", DTYPES)
def test_every_value_goes_to_one_of_its_two_neighbours(to: torch.dtype) -> None:
    """Never further than a step: the result is the nearest value below or above, for both signs and many sizes."""
    values = torch.cat([torch.randn(5000) * 10.0**power for power in range(-9, 4)])
    rounded = stochastic(values, to, "seed")
    assert rounded.dtype == to
    step = (rounded.float() - values).abs()
    nearest = values.to(to)
    other = torch.nextafter(nearest.float(), values)  # towards the value, in fp32: only the direction counts
    outward = torch.where(other.abs() > nearest.float().abs(), 1, -1).to(torch.int16)
    second = (nearest.view(torch.int16) + outward).view(to)
    allowed = (rounded == nearest) | (rounded == second)
    assert bool(allowed.all()), values[~allowed][:5]
    assert bool((step[nearest.float() == values] == 0).all())


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("value", [1 + 2**-12, -(1 + 2**-12), 3e-6, -0.7])
def test_the_mean_is_the_value(to: torch.dtype, value: float) -> None:
    """Of n draws the mean is within 5 standard errors: a draw's deviation is at most half a step."""
    n = 200_000
    rounded = stochastic(torch.full((n,), value), to, "mean").double()
    low, high = rounded.min(), rounded.max()
    exact = torch.tensor(value).double()
    share = (exact - low) / (high - low) if high > low else torch.tensor(0.0)
    error = (high - low) * torch.sqrt(share * (1 - share) / n)
    assert abs(rounded.mean() - exact) <= 5 * error
    assert low <= exact <= high


def test_the_probability_is_the_fraction_of_a_step() -> None:
    """bfloat16's step at 1 is 2^-7; 1 + 2^-9 is a quarter of it: 1 with probability 3/4, 1 + 2^-7 with 1/4."""
    rounded = stochastic(torch.full((400_000,), 1 + 2.0**-9), torch.bfloat16, "quarter").float()
    assert set(rounded.tolist()) == {1.0, 1 + 2.0**-7}
    assert abs(float((rounded > 1).float().mean()) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 400_000)


@pytest.mark.parametrize("to", DTYPES)
def test_what_can_be_held_stays(to: torch.dtype) -> None:
    """All 65,536 bit patterns of the dtype, with zeros, subnormals and infinities; a NaN stays a NaN."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(to)
    rounded = stochastic(every.float(), to, "exact")
    whole = ~torch.isnan(every)
    assert torch.equal(rounded.view(torch.int16)[whole], every.view(torch.int16)[whole])
    assert bool(torch.isnan(rounded[~whole]).all())


def test_what_is_too_large_is_infinite_as_by_rounding_to_nearest() -> None:
    """65,519 is nearer to float16's largest, 65,504, than to where the next one would be; 65,520 is not."""
    values = torch.tensor([65_519.0, 65_520.0, -1e9, 65_504.0])
    assert stochastic(values, torch.float16, "large").tolist() == [65_504.0, math.inf, -math.inf, 65_504.0]


def test_the_bytes_are_the_seeds() -> None:
    """Equal seeds give equal bytes on every machine, across chunks too; another seed gives others."""
    values = torch.linspace(-3, 3, 100_003)
    one = stochastic(values, torch.bfloat16, "a")
    assert torch.equal(one, stochastic(values.reshape(1, -1), torch.bfloat16, "a").reshape(-1))
    assert not torch.equal(one, stochastic(values, torch.bfloat16, "b"))
    digest = hashlib.sha256(one.view(torch.int16).numpy().astype("<i2").tobytes()).hexdigest()
    assert digest == "a8cea36d150ef871de6a6d0d23644a2b68873d4cf2fc9a707441f701b8fe5505"
    long = torch.full((CHUNK + 8,), 1 + 2.0**-8)
    parts = stochastic(long, torch.bfloat16, "a")
    assert not torch.equal(parts[:8], parts[CHUNK:])  # the draws go on, and do not begin again
