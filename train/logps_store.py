"""Reference log-probabilities: computed once per iteration, before its first step, and stored by content.

At the first step of an iteration the policy is the reference, so the policy itself computes them; only where the recipe
keeps the initial model as the reference of later iterations does another model have to.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kto_release.digests import sha256_of
from kto_release.train.batches import GlobalBatch, IntArray
from kto_release.train.logprobs import branch_logprobs
from kto_release.train.placing import device_of
from kto_release.train.plain import room
from kto_release.train.tokens import Tokens, trees
from kto_release.train.tree import share

TREES_AT_ONCE = 512
# Shape suffixes: K wanted pairs of a prompt and a completion.


class Reference(NamedTuple):
    """log pi_ref of every (prompt, completion) that an iteration needs."""

    keys_K: IntArray
    """prompt number x feedback of the partition + number of the feedback whose completion it is; sorted."""
    logps_K: NDArray[np.float64]
    feedback: int
    """Feedback of the partition."""

    def of(self, prompts: IntArray, completions: IntArray) -> NDArray[np.float64]:
        """log pi_ref for these pairs."""
        keys = prompts * self.feedback + completions
        places = np.searchsorted(self.keys_K, keys)
        places = np.minimum(places, len(self.keys_K) - 1)  # a key above all others
        if not np.array_equal(self.keys_K[places], keys):
            raise KeyError("a pair of prompt and completion has no reference log-probability")
        found: NDArray[np.float64] = self.logps_K[places]
        return found


def wanted(tokens: Tokens, batches: Iterable[GlobalBatch]) -> IntArray:
    """The keys of all completions of the partition and of all KL partners of these batches, sorted."""
    count = len(tokens)
    own = tokens.prompt_F * count + np.arange(count)
    partners = [tokens.prompt_F[batch.feedback_B] * count + batch.partner_B for batch in batches]
    return np.unique(np.concatenate([own, *partners]))


def content_key(tokens: Tokens, keys_K: IntArray, weights: str, max_length: int, precision: str) -> str:
    """What reference log-probabilities depend on, as one digest."""
    return sha256_of(
        {
            "weights": weights,
            "tokens": tokens.facts.sha256,
            "pairs": sha256_of(keys_K.tobytes().hex()),
            "max_length": max_length,
            "precision": precision,
        }
    )


def load(folder: Path, key: str, tokens: Tokens) -> Reference | None:
    """The stored reference of this content, or None."""
    path = folder / f"{key[:16]}.npz"
    if not path.exists():
        return None
    stored = np.load(path)
    return Reference(stored["keys_K"], stored["logps_K"], len(tokens)) if str(stored["key"]) == key else None


def store(folder: Path, key: str, reference: Reference) -> None:
    """Keep a reference, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{key[:16]}.part.npz"
    np.savez(part, keys_K=reference.keys_K, logps_K=reference.logps_K, key=np.array(key))
    part.replace(folder / f"{key[:16]}.npz")


def _chunks(keys_K: IntArray, count: int) -> Iterator[IntArray]:
    """Places of the keys, cut after every so many prompts."""
    prompt_K = keys_K // count
    starts = np.flatnonzero(np.diff(prompt_K, prepend=-1))[::TREES_AT_ONCE]
    yield from np.split(np.arange(len(keys_K)), starts[1:])


@torch.no_grad()
def compute(
    model: nn.Module,
    tokens: Tokens,
    keys_K: IntArray,
    *,
    max_length: int,
    tokens_per_pack: int,
    rank: int = 0,
    ranks: int = 1,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Reference:
    """log pi of every wanted pair under `model`, shared between ranks.

    Args:
        model: taught by `teach_trees`; on its device, in the wrapping of its rank.
        tokens: the partition.
        keys_K: from `wanted`.
        max_length: where KL partners are cut.
        tokens_per_pack: most tokens of a forward pass.
        rank: which share is computed here.
        ranks: how many there are.
        reduce: sums a tensor over ranks.
    """
    device = device_of(model)
    count = len(tokens)
    logps_K = torch.zeros(len(keys_K), dtype=torch.float64)
    was_training = model.training
    model.eval()
    for places in _chunks(keys_K, count):
        chunk = keys_K[places]
        grown = trees(tokens, chunk // count, chunk % count, places, max_length)
        for pack in share(grown, ranks, room(model, tokens_per_pack))[rank]:
            found = branch_logprobs(model, pack.to(device))
            if pack.slots:
                logps_K[list(pack.slots)] = found.double().cpu()
    model.train(was_training)
    if reduce is not None:
        logps_K = reduce(logps_K.to(device)).cpu()
    return Reference(keys_K, logps_K.numpy(), count)
