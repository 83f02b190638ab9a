"""Stochastic rounding: fewer bits without losing what training learned.

At KTO's learning rates most updates are a fraction of a bfloat16 step. Rounded to the nearest, each of them is lost;
rounded up with a probability equal to its fraction, each is kept in expectation: over millions of weights the updates
add up in the function, and the noise of the rounding does not (docs/numerics.md has the measurement). See Gupta et al.,
Deep Learning with Limited Numerical Precision, arXiv:1502.02551, section 3.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, dtype

CHUNK = 2**22
"""Values rounded at once: bounds the memory."""
LEVELS = 2**16
"""Probabilities that can be told apart: from fp32 to bfloat16 16 bits are dropped, so that each is exact."""


def stochastic(tensor: "Tensor", to: "dtype", seed: str) -> "Tensor":
    """The tensor in a 16-bit floating dtype, each value at one of its two neighbours, the nearer the likelier.

    A value that `to` can hold stays as it is; what is infinite or NaN in `to` by rounding to the nearest is that here.
    The same tensor and seed give the same bytes on every machine.

    Args:
        tensor: fp32, on the CPU, of any shape.
        to: torch.bfloat16 or torch.float16.
        seed: any text.
    """
    flat = tensor.detach().contiguous().reshape(-1)
    key = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "little")
    # Philox' raw output is the same in every version of numpy; its distributions need not be.
    numbers = np.random.Philox(key=key)
    rounded = flat.new_empty(len(flat), dtype=to)
    for start in range(0, len(flat), CHUNK):
        part = flat[start : start + CHUNK]
        rounded[start : start + len(part)] = _rounded(part, to, _drawn(numbers, len(part)))
    return rounded.reshape(tensor.shape)


def _drawn(numbers: np.random.Philox, count: int) -> "Tensor":
    """Whole numbers below LEVELS, each as likely."""
    import torch

    raw = np.asarray(numbers.random_raw(-(-count // 4)), dtype="<u8")
    return torch.from_numpy(raw.view("<u2")[:count].astype(np.int32))


def _rounded(values: "Tensor", to: "dtype", drawn: "Tensor") -> "Tensor":
    import torch

    nearest = values.to(to)
    # A 16-bit float's sign and magnitude are its bits: one more is the next value away from zero, whatever the sign.
    bits = nearest.view(torch.int16)
    below = bits - (nearest.float().abs() > values.abs()).to(torch.int16)
    low, high = below.view(to).float(), (below + 1).view(to).float()
    share = (values - low) / (high - low)  # 0 where the next value is infinite
    chosen = torch.where(drawn < share * LEVELS, below + 1, below).view(to)
    return torch.where(torch.isfinite(nearest), chosen, nearest)
