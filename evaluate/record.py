"""results.json: what it is made from, and when it is made already."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kto_release.digests import sha256_of
from kto_release.evaluate.answers import Answers
from kto_release.evaluate.baseline import Reference, is_alpaca_eval
from kto_release.evaluate.calibration.command import estimated
from kto_release.evaluate.instructions import InstructionSet
from kto_release.evaluate.scoring.length_data import LcData
from kto_release.evaluate.scoring.scores import Scores, score
from kto_release.evaluate.scoring.screening import Screening, screen
from kto_release.evaluate.scoring.verdict import verdict_of
from kto_release.files import read_record
from kto_release.judges.asking import Pair
from kto_release.judges.judge import Judge
from kto_release.judges.official import OFFICIAL_REFERENCE
from kto_release.judges.rows import Judged
from kto_release.provenance import environment, now
from kto_release.recipe import EvalSection
from kto_release.records import (
    OWN_LENGTH,
    CalibrationRecord,
    EvalRecord,
    GenerationFacts,
    JudgeFacts,
    JudgingFacts,
    ModelFacts,
)


class Compared(NamedTuple):
    """What was scored against what: the parts of a record that no judgement determines."""

    model: ModelFacts | None
    """Null where recorded annotations were scored."""
    answers_by: str | None
    """Generator of the answers."""
    instructions: str
    instructions_sha256: str
    instructions_revision: str | None
    reference: str
    reference_sha256: str
    generation: GenerationFacts | None
    judge: JudgeFacts
    lc_data: LcData | None
    inputs_sha256: str | None = None


class Evaluated(NamedTuple):
    """An evaluation whose answers are there: everything that its score is of, but for the judgements."""

    settings: EvalSection
    instructions: InstructionSet
    answers: Answers
    reference: Reference
    judge: Judge
    pairs: list[Pair]
    training_prompts: Iterable[str] | None
    """Read where they are needed."""
    trained_before: frozenset[str]
    """Digests of the questions that the model's ancestors were trained on."""
    lc_data: LcData | None
    calibration: CalibrationRecord | None
    """Of this judge."""
    allow_partial: bool

    def digest(self) -> str:
        """Digest of all that determines the record: where it is the same, nothing is to be done."""
        return sha256_of(
            {
                "instructions": self.instructions.sha256,
                "answers": self.answers.sha256,
                "generator": self.answers.generator,
                "reference": [self.reference.name, self.reference.sha256],
                "judge": [self.judge.facts.model_dump(), self.judge.determines],
                "length_control": self.lc_data.sha256 if self.lc_data else None,
                "calibration": self.calibration.finished if self.calibration else None,
                "bootstrap": self.settings.bootstrap,
                "min_answer_mass": self.settings.min_answer_mass,
                "max_failed": self.settings.max_failed,
                "allow_partial": self.allow_partial,
            }
        )

    def screen(self) -> Screening:
        """The answers screened, before their judgements are asked and paid for."""
        return screen(
            [pair.instruction for pair in self.pairs],
            [pair.answer for pair in self.pairs],
            [pair.reference for pair in self.pairs],
            cut=[answer.cut for answer in self.answers.rows],
            thoughts=[bool(answer.thoughts) for answer in self.answers.rows],
            training_prompts=self.training_prompts,
            trained_before=self.trained_before,
        )

    def score(self, rows: Sequence[Judged]) -> Scores:
        """The scores of the judged rows. Raises `ScoreError`."""
        own = not is_alpaca_eval(self.instructions)
        return score(
            rows,
            expected=self.instructions.expected if own else None,
            lc_data=self.lc_data,
            bootstrap=self.settings.bootstrap,
            allow_partial=self.allow_partial or bool(self.settings.max_instructions or self.settings.max_failed),
            min_answer_mass=self.settings.min_answer_mass,
            votes=self.judge.facts.votes,
        )

    def record(self, scores: Scores, screening: Screening, judging: JudgingFacts) -> EvalRecord:
        """The record of these scores, which carries the doubts that judging left."""
        made = self.answers.record
        compared = Compared(
            model=made.model if made else None,
            answers_by=self.answers.generator,
            instructions=self.instructions.name,
            instructions_sha256=self.instructions.sha256,
            instructions_revision=self.instructions.revision,
            reference=self.reference.name,
            reference_sha256=self.reference.sha256,
            generation=made.generation if made else None,
            judge=self.judge.facts,
            lc_data=self.lc_data,
            inputs_sha256=self.digest(),
        )
        estimate = estimated(self.calibration, scores, self.judge.facts, self.reference.name)
        told = scores._replace(unreliable_because=[*scores.unreliable_because, *judging.doubts])
        return to_record(told, compared, screening, estimated=estimate).model_copy(update={"judging": judging})


def finished(folder: Path, digest: str) -> EvalRecord | None:
    """The record in `folder`, if it is of these very inputs."""
    record = read_record(folder / "results.json", EvalRecord)
    return record if record is not None and record.inputs_sha256 == digest else None


def full_name(compared: Compared, *, is_alpaca_eval: bool) -> str:
    """The score's name: what was measured, against what, and by whom. Reference and judge are a part of it, always.

    Two references can have one name, so theirs comes with a digest of its answers; the official one's is known.
    """
    judge, reference = compared.judge, compared.reference
    if not (is_alpaca_eval and reference == OFFICIAL_REFERENCE):
        reference = f"{reference} {compared.reference_sha256[:8]}"
    benchmark = "AlpacaEval 2.0" if is_alpaca_eval else compared.instructions
    orders = "both orders" if judge.swap else "one order"
    votes = f", {judge.votes} votes" if judge.votes > 1 else ""
    read = f", discrete verdicts in words{votes}" if judge.words else ""
    asked = f"judge={judge.name}, prompt={judge.prompt} {judge.prompt_sha256[:8]}, {orders}{read}"
    return f"{benchmark} [reference={reference}, {asked}]"


def to_record(
    scores: Scores, compared: Compared, screening: Screening, *, estimated: Mapping[str, Any] | None = None
) -> EvalRecord:
    """The record of an evaluation; `estimated` is what a calibration makes of it."""
    data = compared.lc_data
    plain = compared._asdict()
    del plain["lc_data"]
    record = EvalRecord(
        **plain,
        finished=now(),
        score=full_name(compared, is_alpaca_eval=scores.is_alpaca_eval),
        win_rate=scores.win_rate,
        standard_error=scores.standard_error,
        discrete_win_rate=scores.discrete_win_rate,
        length_controlled_winrate=scores.length_controlled_winrate,
        n_total=scores.n_total,
        n_missing=scores.n_missing,
        n_failed=scores.n_failed,
        avg_length=scores.avg_length,
        partial=scores.partial,
        is_alpaca_eval=scores.is_alpaca_eval,
        intervals=scores.intervals,
        variance=scores.variance,
        position_bias=scores.position_bias,
        self_consistency=scores.self_consistency,
        answer_mass=scores.answer_mass,
        reliable=not scores.unreliable_because and not screening.gamed,
        unreliable_because=scores.unreliable_because,
        screening=screening.counts,
        gamed=screening.gamed,
        estimated=None if estimated is None else dict(estimated),
        environment=environment(),
        n_wins=scores.n_wins,
        n_wins_base=scores.n_wins_base,
        n_draws=scores.n_draws,
        no_length_control=scores.no_length_control,
        lc_data_sha256=data.sha256 if data and scores.length_controlled_winrate is not None else None,
        regularization=scores.regularization,
        by_dataset=scores.by_dataset,
        own_length_controlled_winrate=own.value if (own := scores.intervals.get(OWN_LENGTH)) else None,
    )
    return record.model_copy(update={"verdict": verdict_of(np.array(scores.gains), scores.points, record.doubts)})
