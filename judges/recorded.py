"""Judgements that exist already, in alpaca_eval's annotations.json format: asked again, and answered from the file."""

from pathlib import Path

from kto_release.digests import sha256_of
from kto_release.engines import Engines, Model
from kto_release.judges.judge import Done, Failure, Load, Question, Questions, Verdict
from kto_release.judges.official import (
    OFFICIAL_JUDGE,
    OFFICIAL_REFERENCE,
    official_judge_facts,
    recorded_judge_facts,
)
from kto_release.judges.rows import Judged, read_rows
from kto_release.positions import collapsed
from kto_release.recipe import RecordedJudge as Section
from kto_release.run import Run


class RecordedJudge:
    """See `Judge`. Raises `DataError` or `ScoreError` where the file holds no judgements."""

    beside = False
    occupies: Model | None = None
    longest = 0
    trial: str | None = None

    def __init__(self, section: Section) -> None:
        found = read_rows(Path(section.path))
        self._rows: dict[tuple[str, str, str], Judged] = {}
        self._asked = {collapsed(row.instruction) for row in found.rows}
        for row in found.rows:
            # By the very text, and by it whatever its whitespace: two that differ in that alone have other answers.
            for text in (collapsed(row.instruction), row.instruction):
                self._rows[text, row.reference, row.output] = row
        self.facts = (
            official_judge_facts()
            if (found.annotator, found.reference) == (OFFICIAL_JUDGE, OFFICIAL_REFERENCE)
            else recorded_judge_facts(section.model.rsplit("/", 1)[-1], model=section.model, annotator=found.annotator)
        )
        rows = [[row.instruction, row.reference, row.output, row.preference] for row in found.rows]
        self.determines = {"judge": self.facts.name, "rows": sha256_of(rows)}

    def affords(self, *_: int) -> bool:
        """See `Judge`. It costs nothing."""
        return True

    def priced(self, load: Load) -> str:
        """See `Judge`."""
        del load
        return f"{self.facts.model}: recorded judgements, no cost"

    def prepare(self, questions: int, characters: int) -> None:
        """See `Judge`. Nothing is asked of anyone."""

    def ask(self, questions: Questions, done: Done) -> None:
        """See `Judge`. A judgement of other answers than these is none."""
        for question in questions:
            reference, answer = question.first, question.second
            if question.order == "answer_first":
                reference, answer = answer, reference
            texts = (question.instruction, collapsed(question.instruction))
            row = next((self._rows[key] for text in texts if (key := (text, reference, answer)) in self._rows), None)
            if row is not None:
                done(question, _verdict(row, question))
            elif collapsed(question.instruction) in self._asked:
                done(question, Failure("the judgement that is recorded is of other answers"))
            else:
                done(question, Failure("no judgement is recorded for this instruction"))


def _verdict(row: Judged, question: Question) -> Verdict | Failure:
    if row.preference is None:
        return Failure(row.failure or "the judgement that is recorded failed")
    # Exact in floating point, so the preference comes back to the last digit.
    first = 2 - row.preference if question.order == "reference_first" else row.preference - 1
    return Verdict(first, row.mass, flagged=row.tampered)


def open_judge(section: Section, run: Run, pool: Engines, load: Load | None, *, again: bool) -> RecordedJudge:
    """The judge of this section: it needs neither the run nor an engine, and nobody is asked."""
    del run, pool, load, again
    return RecordedJudge(section)
