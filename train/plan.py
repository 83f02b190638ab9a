"""What an iteration will do, written before it starts: plan.json."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from kto_release.errors import RecipeError
from kto_release.files import read_record, write_record
from kto_release.recipe import Recipe, TrainSection
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


def check_plan(recipe: Recipe) -> None:
    """What would only fail, or be ignored, after hours: trackers that are not there, rules on what is not measured.

    Raises `RecipeError`.
    """
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for tracker in recipe.train.report_to:
        if tracker not in INTEGRATION_TO_CALLBACK:
            raise RecipeError(
                f"train.report_to: {tracker!r} is no tracker that transformers knows",
                expected=f"some of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}",
            )
        if tracker not in get_available_reporting_integrations():
            raise RecipeError(f"train.report_to: {tracker!r} is not installed", todo=f"pip install {tracker}")
    for rule in recipe.train.stop_if:
        missing = "data.held_out" if recipe.data.held_out is None else None
        if rule.metric != "preference_accuracy" and not recipe.train.probe_prompts:
            missing = "train.probe_prompts above 0"
        if missing:
            raise RecipeError(f"train.stop_if: {rule.metric} needs {missing}", todo=f"set {missing}, or drop the rule")


def read_plan(folder: Path) -> Plan | None:
    """The plan of an iteration, or None where it has not begun."""
    return read_record(folder / "plan.json", Plan)


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of an iteration."""
    write_record(folder / "plan.json", plan)
