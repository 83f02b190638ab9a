"""One iteration of KTO: what it starts from, what it trains on, and with which loss."""

from pathlib import Path
from typing import NamedTuple

from kto_release.digests import sha256_of
from kto_release.feedback.partitions import input_digests
from kto_release.files import read_jsonl, read_record
from kto_release.provenance import environment, now
from kto_release.recipe import TrainSection
from kto_release.records import IterationRecord, ModelFacts, TrainingFacts
from kto_release.templates.moment import moment_of
from kto_release.train.batches import GlobalBatch, all_batches
from kto_release.train.device import hardware, process_state
from kto_release.train.inputs import Inputs
from kto_release.train.loss import Loss, loss_for
from kto_release.train.plain import TREES
from kto_release.train.plan import Plan
from kto_release.train.probe import Probed
from kto_release.train.proof import Road
from kto_release.train.tokens import Tokens


class Iteration(NamedTuple):
    """Everything that determines what one iteration computes."""

    inputs: Inputs
    number: int
    """From 1."""
    parent: ModelFacts
    """The model that it starts from."""
    reference: ModelFacts
    batches: list[GlobalBatch]
    """One per optimizer step, over all epochs."""
    loss: Loss
    precision: str
    """bf16 or fp32: of the arithmetic."""

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self.inputs.run.iteration(self.number)

    @property
    def title(self) -> str:
        """For people."""
        return f"iteration {self.number}/{self.inputs.run.recipe.data.iterations}"

    @property
    def train(self) -> TrainSection:
        """The recipe's train section."""
        return self.inputs.run.recipe.train

    @property
    def tokens(self) -> Tokens:
        """Its feedback."""
        return self.inputs.tokens[self.number - 1]

    def weights_of(self, model: ModelFacts) -> Path:
        """The folder of a model of this run."""
        return self.inputs.base.path if model.path is None else self.inputs.run.path / model.path

    def plan(self) -> Plan:
        """What is written before the first step."""
        return Plan(
            iteration=self.number,
            inputs=input_digests(self.inputs.partitions[self.number - 1]),
            tokens_sha256=self.tokens.facts.sha256,
            parent_sha256=self.parent.sha256,
            reference_sha256=self.reference.sha256,
            steps=len(self.batches),
            desirable_weight=self.loss.desirable,
            undesirable_weight=self.loss.undesirable,
            precision=self.precision,
        )

    def training_facts(self) -> TrainingFacts:
        """What the training did, by its metrics; it must have made at least one step."""
        rows = read_jsonl(self.folder / "metrics.jsonl")
        tail = rows[-max(1, len(rows) // 10) :]
        shown = [name for name in rows[-1] if name not in ("step", "seconds", "tokens")]
        train = self.train
        road = read_record(self.folder / "road.json", Road) or Road(name=TREES)
        return TrainingFacts(
            steps=len(self.batches),
            epochs=train.epochs,
            batch_size=train.batch_size,
            beta=self.loss.beta,
            learning_rate=train.learning_rate,
            desirable_weight=self.loss.desirable,
            undesirable_weight=self.loss.undesirable,
            lora=train.lora.model_dump() if train.lora else None,
            precision=self.precision,
            max_length=train.max_length,
            tokens_computed=int(rows[-1]["tokens"]),
            computed_by=road.name,
            computed_by_reason=road.reason,
            seconds=rows[-1]["seconds"],
            first={name: rows[0][name] for name in shown if name in rows[0]},
            last={name: sum(row[name] for row in tail if name in row) / len(tail) for name in shown},
        )

    def record(self, model: ModelFacts, probed: Probed) -> IterationRecord:
        """What is written when it is finished: `model` is what it made."""
        return IterationRecord(
            iteration=self.number,
            finished=now(),
            recipe_sha256=sha256_of(self.inputs.run.recipe.identity()),
            template=self.inputs.template.name,
            template_sha256=self.inputs.template.sha256,
            template_moment=moment_of(self.inputs.tokenizer),
            parent=self.parent,
            reference=self.reference,
            model=model,
            partition=self.inputs.facts[self.number - 1],
            training=self.training_facts(),
            probe=probed.probe,
            logprobs=probed.logprobs,
            initial_logprobs=probed.initial_logprobs,
            environment=environment(hardware(), process_state().num_processes),
        )


def make_iteration(inputs: Inputs, number: int, parent: ModelFacts, precision: str) -> Iteration:
    """Iteration `number` with its batches and its loss. Raises `DataError` where all feedback has one prompt."""
    train, tokens = inputs.run.recipe.train, inputs.tokens[number - 1]
    desirable = int(tokens.desirable_F.sum())
    return Iteration(
        inputs=inputs,
        number=number,
        parent=parent,
        reference=parent if train.reference == "previous" else inputs.initial,
        batches=all_batches(tokens, train, number),
        loss=loss_for(train, desirable, len(tokens) - desirable),
        precision=precision,
    )
