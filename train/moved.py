"""What training did to each row: how much log-ratio its answer gained from the reference to the last model."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from kto_release.digests import weights_digest
from kto_release.errors import RunError
from kto_release.files import read_record
from kto_release.records import IterationRecord, ModelFacts
from kto_release.run import Run
from kto_release.train import logps_store
from kto_release.train.batches import IntArray, all_batches
from kto_release.train.device import autocast
from kto_release.train.model import load_model
from kto_release.train.plan import PLAN, Plan
from kto_release.train.proof import proof_trees, prove
from kto_release.train.tokens import Tokens
from kto_release.train.tree import FORWARD_ONLY

HELD_OUT = "held out"
# Shape suffixes: F feedback of the partition.


class Moved(NamedTuple):
    """The feedback of one partition, and what became of it."""

    name: str
    """"iteration 2", or "held out"."""
    tokens: Tokens
    against: str
    """The model that the gain is counted from: "initial", "iteration-1"."""
    gained_F: NDArray[np.float64]
    """log pi of the last model - log pi of that one, in nats per answer."""

    def wrong_way(self) -> NDArray[np.float64]:
        """The gain, signed so that above 0 is the wrong way: away from a desirable answer, or towards another."""
        signed: NDArray[np.float64] = np.where(self.tokens.desirable_F, -self.gained_F, self.gained_F)
        return signed


class _Known(NamedTuple):
    """One partition, before the last model has seen it."""

    name: str
    tokens: Tokens
    against: str
    before_F: NDArray[np.float64]


def moved(run: Run) -> list[Moved]:
    """Every partition of the finished iterations, and the held-out feedback.

    One pass of the last model; the references are those that training stored. What was computed is kept in the run.
    Raises `RunError` where no iteration is finished, or its tokens, references or weights are gone or not its own.
    """
    records = run.iteration_records()
    if not records:
        raise RunError(f"no finished iteration in {str(run.path)!r}", todo="train it first: kto-release train RECIPE")
    precision = _plan(run, records[-1]).precision
    known = [_trained(run, record) for record in records]
    held_out = run.path / "held-out" / "tokens"
    if held_out.is_dir():
        known.append(_held_out(run, Tokens(held_out), records[0].parent, precision))
    after = _after(run, records[-1].model, precision, known)
    return [Moved(k.name, k.tokens, k.against, after_F - k.before_F) for k, after_F in zip(known, after, strict=True)]


def _plan(run: Run, record: IterationRecord) -> Plan:
    plan = read_record(run.iteration(record.iteration) / PLAN, Plan)
    if plan is None:
        raise RunError(f"iteration {record.iteration} has no {PLAN}", todo="restore it")
    return plan


def _trained(run: Run, record: IterationRecord) -> _Known:
    folder = run.iteration(record.iteration)
    tokens, plan = Tokens(folder / "tokens"), _plan(run, record)
    if tokens.facts.sha256 != record.partition.sha256:
        raise RunError(
            f"the tokens of iteration {record.iteration} are not those that it was trained on",
            todo=f"restore {str(folder / 'tokens')!r}",
        )
    keys_K = logps_store.wanted(tokens, all_batches(tokens, run.recipe.train, record.iteration))
    found = _stored(run, folder / "reference", tokens, keys_K, record.reference.sha256, plan.precision)
    if found is None:
        raise RunError(
            f"the reference log-probabilities of iteration {record.iteration} are gone",
            expected=f"a file in {str(folder / 'reference')!r} that is of this recipe",
            todo="restore it",
        )
    return _Known(f"iteration {record.iteration}", tokens, record.reference.name, found)


def _held_out(run: Run, tokens: Tokens, initial: ModelFacts, precision: str) -> _Known:
    folder = run.path / "held-out" / "logps"
    found = _stored(run, folder, tokens, logps_store.wanted(tokens, []), initial.sha256, precision)
    if found is None:
        raise RunError("the initial model's log-probabilities of the held-out feedback are gone", todo="restore them")
    return _Known(HELD_OUT, tokens, initial.name, found)


def _stored(
    run: Run, folder: Any, tokens: Tokens, keys_K: IntArray, weights: str, precision: str
) -> NDArray[np.float64] | None:
    """log pi of each completion of a partition under the model of these weights, shape (F,), where it was kept."""
    key = logps_store.content_key(tokens, keys_K, weights, run.recipe.train.max_length, precision)
    found = logps_store.load(folder, key, tokens)
    return None if found is None else found.of(tokens.prompt_F, np.arange(len(tokens)))


def _after(run: Run, model: ModelFacts, precision: str, known: list[_Known]) -> list[NDArray[np.float64]]:
    """log pi of each partition's completions under the last model; it is loaded once, if at all."""
    loaded = None
    found = []
    for part in known:
        folder = run.path / part.name.replace(" ", "-") / "logps"
        keys_K = logps_store.wanted(part.tokens, [])
        own_F = _stored(run, folder, part.tokens, keys_K, model.sha256, precision)
        if own_F is None:
            loaded = loaded or _load(run, model, [k.tokens for k in known])
            own_F = _computed(run, loaded, part.tokens, folder, keys_K, model, precision)
        found.append(own_F)
    return found


def _load(run: Run, model: ModelFacts, every: list[Tokens]) -> Any:
    path = run.path / (model.path or "")
    if model.path is None or not path.is_dir() or weights_digest(path) != model.sha256:
        raise RunError(f"the weights of {model.name} are gone, or not those of its record", todo=f"restore {path}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_model(path, run.recipe.model).to(device).eval()
    longest = max(every, key=lambda tokens: sum(map(len, tokens.longest())))
    prove(loaded, proof_trees(longest, run.recipe.train.max_length))
    return loaded


def _computed(
    run: Run,
    loaded: Any,
    tokens: Tokens,
    folder: Any,
    keys_K: IntArray,
    model: ModelFacts,
    precision: str,
) -> NDArray[np.float64]:
    train = run.recipe.train
    with autocast(precision, next(loaded.parameters()).device):
        made = logps_store.compute(
            loaded,
            tokens,
            keys_K,
            max_length=train.max_length,
            tokens_per_pack=FORWARD_ONLY * train.tokens_per_pack,
        )
    key = logps_store.content_key(tokens, keys_K, model.sha256, train.max_length, precision)
    logps_store.store(folder, key, made)
    return made.of(tokens.prompt_F, np.arange(len(tokens)))
