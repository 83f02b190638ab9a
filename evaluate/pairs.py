"""Both sides of a comparison, the answers and the reference's, with a judge at work beside where it can be."""

import re
from contextlib import ExitStack

from kto_release.digests import sha256_of
from kto_release.engines import Engines
from kto_release.evaluate.answers import Answer, Answers, answer, are_complete, stored_answers
from kto_release.evaluate.baseline import Reference, from_answers, from_outputs, pairs_of
from kto_release.evaluate.candidates import Candidate, find_candidate
from kto_release.evaluate.instructions import InstructionSet, Outputs
from kto_release.evaluate.training_prompts import training_prompts
from kto_release.judges.asking import Journal, questions_of
from kto_release.judges.background import Beside
from kto_release.judges.judge import Judge
from kto_release.lineage import questions, read_lineage
from kto_release.run import Run

CHARACTERS_PER_TOKEN = 4
"""Of an answer that is still to come, for an estimate of its length."""


LONGEST = 80
"""Characters of a name within a folder's."""


class Sides:
    """Both sides of the comparison, and the judge at work beside them where it can be."""

    def __init__(
        self,
        run: Run,
        instructions: InstructionSet,
        subject: Candidate | Outputs,
        stored: Outputs | None,
        pool: Engines,
        judge: Judge | None,
        *,
        allow_partial: bool,
    ) -> None:
        self.run, self.instructions, self.subject, self.stored = run, instructions, subject, stored
        self.pool, self.judge, self.allow_partial = pool, judge, allow_partial

    def answers(self, beside: Beside | None = None, reference: Reference | None = None) -> Answers:
        """The evaluated answers; each goes to the judge beside, if there is one, as soon as it is finished."""
        if isinstance(self.subject, Outputs):
            return stored_answers(self.subject, self.instructions, allow_partial=self.allow_partial)

        def heard(one: Answer) -> None:
            if beside is not None and reference is not None and self.judge is not None:
                number = one.place * self.run.recipe.eval.generation.samples + one.sample
                for pair in pairs_of(self.instructions, [one], reference):
                    for question in questions_of(number, pair, self.judge):
                        beside.put(question)

        return answer(
            self.run, self.subject, self.instructions, self.pool, reserve=self._reserve(self.subject), heard=heard
        )

    def reference(self) -> Reference:
        """What they are compared with."""
        if self.stored is not None:
            samples = 1 if isinstance(self.subject, Outputs) else self.run.recipe.eval.generation.samples
            return from_outputs(self.stored, self.instructions, samples, allow_partial=self.allow_partial)
        initial = find_candidate(self.run, "initial")
        reserve = self._reserve(initial)
        return from_answers(answer(self.run, initial, self.instructions, self.pool, reserve=reserve))

    def all(self, judge: Judge) -> tuple[Answers, Reference, Journal]:
        """Both, and the journal of what is judged already.

        The reference comes last where the judge shares the device: it often is the same model, loaded then.
        """
        if not judge.beside or isinstance(self.subject, Outputs):
            answers = self.answers()
            reference = self.reference()
            return _paired(answers, reference), reference, self._journal(judge, reference)
        reference = self.reference()
        journal = self._journal(judge, reference)
        with ExitStack() as stack:
            beside = stack.enter_context(Beside(judge, journal)) if self._may_judge_beside(judge, reference) else None
            return _paired(self.answers(beside, reference), reference), reference, journal

    def _may_judge_beside(self, judge: Judge, reference: Reference) -> bool:
        """Whether there is anything to generate, and the judge is affordable even if all answers are long."""
        if isinstance(self.subject, Outputs) or are_complete(self.run, self.subject, self.instructions):
            return False
        longest = self.run.recipe.eval.generation.max_tokens * CHARACTERS_PER_TOKEN
        orders = 2 if judge.facts.swap else 1
        characters = sum(
            len(self.instructions.rows[place].text) + len(text) + longest
            for (place, _), text in reference.texts.items()
        )
        questions = orders * len(reference.texts)
        if not judge.affords(questions, orders * characters):
            return False
        judge.prepare(questions, orders * characters)
        return True

    def _journal(self, judge: Judge, reference: Reference) -> Journal:
        name = folder_name(judge, reference)
        return Journal(self.run.eval_folder(self._folder(), self.instructions.folder, name))

    def _folder(self) -> str:
        if isinstance(self.subject, Outputs):
            return f"{_safe(self.subject.name)}-{self.subject.sha256[:8]}"
        return self.subject.name

    def _reserve(self, candidate: Candidate) -> int:
        """Tokens that an engine must have room for where the judge is the model that answers."""
        if self.judge is not None and self.judge.occupies == candidate.model:
            return self.judge.longest
        return 0

    def training_prompts(self) -> list[str] | None:
        """What the evaluated model was trained on by the run; null where that is not known (any longer)."""
        if isinstance(self.subject, Outputs):
            return None
        return training_prompts(self.run, self.subject.name, self.subject.tokenizer)

    def trained_before(self) -> frozenset[str]:
        """Digests of the questions that the evaluated model's ancestors were trained on, in earlier runs."""
        if isinstance(self.subject, Outputs):
            return frozenset()
        lineage = read_lineage(self.subject.model.folder)
        return questions(lineage.rounds) if lineage else frozenset()


def _paired(answers: Answers, reference: Reference) -> Answers:
    """The answers that there is one of the reference's to compare with."""
    return answers._replace(rows=[one for one in answers.rows if (one.place, one.sample) in reference.texts])


def folder_name(judge: Judge, reference: Reference) -> str:
    """Of a judge's folder: its name, and a digest of everything that tells it from another one's."""
    facts = judge.facts.model_dump(exclude={"name", "orders_known"})
    digest = sha256_of({"judge": [facts, judge.determines], "reference": [reference.name, reference.sha256]})
    return f"{_safe(judge.facts.name)}-{digest[:8]}"


def _safe(name: str) -> str:
    """A name that is a folder's on every system; a long one is cut, and its digest tells it from others."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return safe if len(safe) <= LONGEST else f"{safe[: LONGEST - 9]}-{sha256_of(name)[:8]}"
