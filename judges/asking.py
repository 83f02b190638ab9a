"""From pairs of answers to judgements: which questions to ask, which are answered already, and what the answers mean.

<judge>/ judgements.jsonl   one line for each verdict, on disk before the next question is asked
         failures.jsonl     the questions of the last try that got no verdict, and why; they are asked again next time
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.errors import JudgeError, RunError
from kto_release.files import append_jsonl, read_jsonl, write_atomically
from kto_release.judges.feed import Waiting
from kto_release.judges.judge import Failure, Judge, Order, Question, Questions, Verdict
from kto_release.judges.rows import Judged
from kto_release.records import JudgeFacts

ORDERS: tuple[Order, Order] = ("reference_first", "answer_first")


class Pair(NamedTuple):
    """Two answers to one instruction."""

    instruction: str
    dataset: str
    sample: int
    reference: str
    """alpaca_eval's output_1."""
    answer: str
    """alpaca_eval's output_2: the evaluated model's."""
    thoughts: str | None = None
    """What the evaluated model thought before it, which no judge sees."""


class Judgements(NamedTuple):
    """All outcomes of one judge."""

    rows: list[Judged]
    """One for each pair, in order."""
    verdicts: list[dict[Order, Verdict]]
    """The verdicts behind each."""
    failures: Counter[str]
    """Pairs without a preference, by reason."""
    unreadable: int = 0
    """Answers of the judge that held no verdict."""


def judge_pairs(judge: Judge, pairs: Sequence[Pair], journal: "Journal", *, label: str = "judgements") -> Judgements:
    """Judge every pair; what the journal holds already is not asked again.

    Raises `JudgeError` where the judge can't be used.
    """
    questions = [question for number, pair in enumerate(pairs) for question in questions_of(number, pair, judge)]
    distinct = {question.key: question for question in questions}
    settled = journal.verdicts.keys() | journal.failures.keys()
    open_questions = [question for key, question in distinct.items() if key not in settled]
    if open_questions:
        written = sum(len(q.instruction) + len(q.first) + len(q.second) for q in open_questions)
        judge.prepare(len(open_questions), written)
        known = len(distinct) - len(open_questions)
        ask(judge, Waiting(open_questions), journal, known=known, total=len(distinct), label=label)
    journal.write_failures()
    return gather(judge.facts, pairs, questions, journal)


def questions_of(number: int, pair: Pair, judge: Judge) -> Iterator[Question]:
    """What to ask about a pair: nothing where the answers are the same, else one order or both."""
    if pair.reference == pair.answer:
        return
    for order in ORDERS if judge.facts.swap else (order_of(pair.instruction),):
        first, second = (pair.reference, pair.answer) if order == ORDERS[0] else (pair.answer, pair.reference)
        determines = {
            "judge": judge.determines,
            "instruction": pair.instruction,
            "order": order,
            "first": first,
            "second": second,
        }
        yield Question(sha256_of(determines), number, order, pair.instruction, first, second)


def order_of(instruction: str) -> Order:
    """The one order in which alpaca_eval asks about this instruction (its seed 0)."""
    switched = random.Random(f"is_switched_outputs{instruction}0").choices([False, True])[0]
    return ORDERS[int(switched)]


class Journal:
    """judgements.jsonl: verdicts by the key of their question; and the failures of this try."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "judgements.jsonl"
        self.verdicts: dict[str, Verdict] = {}
        self.failures: dict[str, Failure] = {}
        self._failed: dict[str, Question] = {}
        for number, row in enumerate(read_jsonl(self.path), 1):
            try:
                known = {name: row[name] for name in Verdict._fields if name in row}
                known["tokens"] = tuple(row["tokens"]) if row["tokens"] else None
                self.verdicts[row["key"]] = Verdict(**known)
            except (KeyError, TypeError):
                raise RunError(
                    f"{self.path.name}, line {number}: not a judgement",
                    todo="restore the file, or remove it to ask again",
                ) from None

    def keep(self, question: Question, outcome: Verdict | Failure) -> None:
        """A verdict goes to disk at once; a failure is only remembered, since it is to be asked again next time."""
        if isinstance(outcome, Failure):
            self.failures[question.key] = outcome
            self._failed[question.key] = question
            return
        row = {"key": question.key, "instruction": question.instruction, "order": question.order}
        append_jsonl(self.path, row | outcome._asdict())
        self.verdicts[question.key] = outcome

    def write_failures(self) -> None:
        """failures.jsonl, for the reader; it goes when there are none."""
        path = self.path.with_name("failures.jsonl")
        if not self.failures:
            path.unlink(missing_ok=True)
            return
        lines = [
            {
                "instruction": question.instruction,
                "order": question.order,
                "reason": self.failures[key].reason,
                "tries": self.failures[key].tries,
            }
            for key, question in self._failed.items()
        ]
        write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def ask(judge: Judge, questions: Questions, journal: Journal, *, known: int, total: int, label: str) -> None:
    """Ask, keep every outcome, and show how far it is: `known` of `total` questions were answered before."""
    with console.progress() as display:
        task = display.add_task(label, total=total, completed=known)

        def done(question: Question, outcome: Verdict | Failure) -> None:
            journal.keep(question, outcome)
            display.advance(task)

        try:
            judge.ask(questions, done)
        finally:
            journal.write_failures()


def gather(facts: JudgeFacts, pairs: Sequence[Pair], questions: Sequence[Question], journal: Journal) -> Judgements:
    """What the verdicts say of each pair. A pair counts only with all of its verdicts."""
    of_pair: list[list[Question]] = [[] for _ in pairs]
    for question in questions:
        of_pair[question.pair].append(question)
    rows, verdicts, failures = [], [], Counter[str]()
    for pair, asked in zip(pairs, of_pair, strict=True):
        found = {q.order: journal.verdicts[q.key] for q in asked if q.key in journal.verdicts}
        reasons = [journal.failures[q.key].reason for q in asked if q.key in journal.failures]
        failure = None
        if len(found) < len(asked):
            failure = reasons[0] if reasons else "not asked"
            failures[failure] += 1
        rows.append(_judged(facts, pair, found, failure))
        verdicts.append(found)
    unreadable = sum(verdict.unreadable for verdict in journal.verdicts.values())
    unreadable += sum(failure.unreadable for failure in journal.failures.values())
    return Judgements(rows, verdicts, failures, unreadable)


def preference_of(order: Order, verdict: Verdict) -> float:
    """In [1, 2], as alpaca_eval counts: 2 where the evaluated model's answer wins."""
    return 2 - verdict.first if order == "reference_first" else 1 + verdict.first


def _judged(facts: JudgeFacts, pair: Pair, found: Mapping[Order, Verdict], failure: str | None) -> Judged:
    by_order = tuple(preference_of(order, found[order]) if order in found else None for order in ORDERS)
    known = [preference for preference in by_order if preference is not None]
    masses = [verdict.mass for verdict in found.values() if verdict.mass is not None]
    same = pair.reference == pair.answer
    average = sum(known) / len(known) if known else None
    return Judged(
        instruction=pair.instruction,
        dataset=pair.dataset or None,
        output=pair.answer,
        reference=pair.reference,
        preference=None if failure else 1.5 if same else average,
        preferences=() if same or not facts.orders_known else by_order,
        mass=sum(masses) / len(masses) if masses else None,
        failure=failure,
        thoughts=pair.thoughts,
        sample=pair.sample,
        tampered=next((verdict.flagged for verdict in found.values() if verdict.flagged), None),
        price=_sum(verdict.price for verdict in found.values()),
        seconds=_sum(verdict.seconds for verdict in found.values()),
        raw={order: verdict.raw for order, verdict in found.items()} or None,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def refuse_failures(judgements: Judgements, allowed: float) -> None:
    """Raise `JudgeError` where more than the share `allowed` of the pairs got no judgement: that is no score."""
    failed, total = sum(judgements.failures.values()), len(judgements.rows)
    if failed and failed / total > allowed:  # divided, since 0.29 * 100 is less than 29
        reasons = "\n".join(f"  - {count} x {reason}" for reason, count in judgements.failures.most_common())
        raise JudgeError(
            f"{failed} of {total} judgements failed, so there is no score:\n{reasons}",
            expected=f"at most {allowed:.1%} (eval.max_failed)",
            todo="run the same command again: only the failed ones are asked",
        )
