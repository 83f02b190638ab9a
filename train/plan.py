"""What an iteration will do, written before it starts: plan.json."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from kto_release.recipe import TrainSection
from kto_release.run import read_record, write_record
from kto_release.train.batches import GlobalBatch, epoch_batches
from kto_release.train.loss import Weights, balanced_weights
from kto_release.train.tokens import Tokens


class Plan(BaseModel):
    """`iteration-N/plan.json`."""

    iteration: int
    inputs: dict[str, str]
    """sha256 of each file of feedback, or the revision of its Hub data set."""
    tokens_sha256: str
    parent_sha256: str
    """Digest of the weights that the iteration starts from."""
    reference_sha256: str
    steps: int
    desirable_weight: float
    undesirable_weight: float
    precision: str


class Work(NamedTuple):
    """The batches of an iteration and the weights of its loss."""

    batches: list[GlobalBatch]
    weights: Weights


def work_of(tokens: Tokens, train: TrainSection, number: int) -> Work:
    """All global batches of an iteration, over its epochs, and the loss weights.

    Raises `DataError` where all feedback has one prompt.
    """
    batches = [
        batch
        for epoch in range(train.epochs)
        for batch in epoch_batches(
            tokens.prompt_F, tokens.desirable_F, train.batch_size, train.seed, number * 1_000_003 + epoch
        )
    ]
    if train.desirable_weight == "auto":
        liked = int(np.sum(tokens.desirable_F))
        weights = balanced_weights(liked, len(tokens) - liked, train.undesirable_weight)
    else:
        weights = Weights(train.desirable_weight, train.undesirable_weight)
    return Work(batches, weights)


def read_plan(folder: Path) -> Plan | None:
    """The plan of an iteration, or None where it has not begun."""
    return read_record(folder / "plan.json", Plan)


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of an iteration."""
    write_record(folder / "plan.json", plan)
