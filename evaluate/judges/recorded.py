"""Judgements that exist already, in alpaca_eval's annotations.json format: asked again, and answered from the file."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kto_release.errors import DataError
from kto_release.evaluate.judges import Done, Failure, Question, Verdict
from kto_release.evaluate.positions import collapsed
from kto_release.evaluate.prompts import read_rows
from kto_release.recipe import RecordedJudge as Section
from kto_release.recipe import sha256_of
from kto_release.records import JudgeFacts

OFFICIAL = "gpt-4-1106-preview"


class RecordedJudge:
    """See `Judge`."""

    def __init__(self, section: Section) -> None:
        path = Path(section.path)
        rows = read_rows(path)
        self._rows: dict[str, dict[str, Any]] = {}
        for number, row in enumerate(rows, 1):
            if not all(isinstance(row.get(name), str) for name in ("instruction", "output_1", "output_2")):
                raise DataError(
                    f"{path.name}, row {number}: no judgement of two texts",
                    expected="instruction, output_1, output_2 and preference, as in alpaca_eval's annotations.json",
                )
            self._rows[collapsed(row["instruction"])] = row
        annotators = {row.get("annotator") for row in rows}
        self.facts = JudgeFacts(
            kind="recorded",
            model=section.model,
            name=section.model.rsplit("/", 1)[-1],
            endpoint=None,
            prompt="as recorded",
            prompt_sha256=sha256_of(sorted(map(str, annotators))),
            swap=False,
            parameters={"annotator": ", ".join(sorted(map(str, annotators))), "rows": sha256_of(_plain(rows))},
            official=section.model == OFFICIAL and annotators == {"weighted_alpaca_eval_gpt4_turbo"},
        )

    def prepare(self, questions: int, characters: int) -> None:
        """See `Judge`. Nothing is asked of anyone."""

    def ask(self, questions: Iterable[Question], done: Done) -> None:
        """See `Judge`. A judgement of other answers than these is none."""
        for question in questions:
            row = self._rows.get(collapsed(question.instruction))
            reference, answer = question.first, question.second
            if question.order == "answer_first":
                reference, answer = answer, reference
            if row is None:
                done(question, Failure("no judgement is recorded for this instruction"))
            elif (row["output_1"], row["output_2"]) != (reference, answer):
                done(question, Failure("the judgement that is recorded is of other answers"))
            else:
                done(question, _verdict(row, question))


def _verdict(row: dict[str, Any], question: Question) -> Verdict | Failure:
    preference = row.get("preference")
    if isinstance(preference, bool) or not isinstance(preference, int | float) or math.isnan(preference):
        return Failure("the judgement that is recorded failed")
    value = 1.5 if preference == 0 else float(preference)  # alpaca_eval's old spelling of a draw
    if not 1 <= value <= 2:
        return Failure(f"the recorded preference {preference!r} is outside [1, 2]")
    first = 2 - value if question.order == "reference_first" else value - 1
    raw = row.get("raw_completion")
    return Verdict(first, None, raw if isinstance(raw, dict) else None)


def _plain(rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [[row["instruction"], row["output_1"], row["output_2"], repr(row.get("preference"))] for row in rows]
