"""A judge is tried before anything is generated: five small pairs in both orders, whose better answer is known.

It shows how the judge can be asked (log-probabilities or words), whether it follows the question, and what an answer
takes. A trial is kept with the run, so that its outcome stays what it was: eval/trials/<judge>/trial.json
"""

import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.judges.feed import Waiting
from kto_release.judges.judge import Failure, Judge, Question, Verdict
from kto_release.provenance import now
from kto_release.records import Facts
from kto_release.run import Run

PAIRS = (
    ("What is the capital of France?", "Paris.", "The capital of France is Berlin, a large city on the river Spree."),
    ("Write one sentence about the sea.", "The sea was calm and silver in the early light.", "qwe zxc sea the the jkl"),
    ("What is 7 times 8?", "56", "7 times 8 is 54, because 7 times 7 is 47, and 7 more than that is 54."),
    ("Say good morning in French.", "Bonjour !", "I can't help with that, since it might do harm to somebody."),
    ("Name the three primary colours of paint.", "Red, yellow and blue.", "Wood."),
)
"""Instruction, better answer, worse answer. Three of the better ones are the shorter ones, so length tells nothing."""
GOOD_MASS = 0.5
"""Mean probability on the letters from which log-probabilities are taken without looking further."""
NOISE = 0.05
"""The same below which what is on the letters is noise: a model that thinks first has a billionth there."""
READABLE = 8
"""Of the ten answers in words so many must hold a verdict."""
OPPOSITE = 1
"""Of the ten verdicts at most so many are right where a judge says the opposite; a coin does in one of a hundred."""


class TrialRecord(Facts):
    """`trial.json`: how a judge is asked, and what it did with questions whose answer is known."""

    kind: Literal["trial"] = "trial"
    finished: str
    words: bool
    """Whether verdicts are read from words; else from log-probabilities."""
    request: dict[str, Any]
    """What is sent beside model and messages."""
    because: str | None
    """Why not from log-probabilities; null where they are taken, or were not asked for."""
    asked: int
    verdicts: int
    right: int
    """Verdicts for the better answer."""
    turned: int
    """Pairs in which the judge favoured the same place in both orders."""
    mass: float | None
    """Mean probability on the letters; null for words."""
    read: float | None
    """Mean tokens of a question; null where the endpoint does not count."""
    written: float | None
    """Mean tokens of an answer, thoughts included."""
    seconds: float
    """Of the whole trial."""
    served: str | None
    """What answered, by its own word."""


class Tried(NamedTuple):
    """What came of asking."""

    outcomes: dict[str, Verdict | Failure]
    """By the question's key."""
    seconds: float

    @property
    def verdicts(self) -> list[Verdict]:
        """Those that there are."""
        return [outcome for outcome in self.outcomes.values() if isinstance(outcome, Verdict)]

    @property
    def failure(self) -> Failure | None:
        """The first question without a verdict."""
        return next((outcome for outcome in self.outcomes.values() if isinstance(outcome, Failure)), None)

    @property
    def why_not(self) -> str:
        """Why it is not asked in this way."""
        if self.failure is not None:
            return self.failure.reason
        if self.mass is None:
            return "no verdict"
        return f"only {self.mass:.2g} of the probability is on the letters"

    @property
    def mass(self) -> float | None:
        """Mean probability on the letters; null where none was measured."""
        masses = [verdict.mass for verdict in self.verdicts if verdict.mass is not None]
        return math.fsum(masses) / len(masses) if masses else None

    @property
    def right(self) -> int:
        """Verdicts for the better answer."""
        return sum(
            outcome.first > 0.5 if key.endswith("first") else outcome.first < 0.5
            for key, outcome in self.outcomes.items()
            if isinstance(outcome, Verdict)
        )

    @property
    def turned(self) -> int:
        """Pairs in which the same place was favoured in both orders."""
        favoured = {key: o.first - 0.5 for key, o in self.outcomes.items() if isinstance(o, Verdict)}
        pairs = [
            [favoured.get(question.key, 0.0) for question in both] for both in zip(ASKED[::2], ASKED[1::2], strict=True)
        ]
        return sum(one * other > 0 for one, other in pairs)


ASKED = tuple(
    Question(f"trial {number} {place}", number, "reference_first", instruction, *answers)
    for number, (instruction, better, worse) in enumerate(PAIRS, 1)
    for place, answers in (("first", (better, worse)), ("second", (worse, better)))
)


def tried(judge: Judge) -> Tried:
    """Ask the first question, and where there is a verdict in its answer the other nine."""
    start = time.monotonic()
    outcomes: dict[str, Verdict | Failure] = {}

    def keep(question: Question, outcome: Verdict | Failure) -> None:
        outcomes[question.key] = outcome

    def found() -> Tried:
        ordered = {question.key: outcomes[question.key] for question in ASKED if question.key in outcomes}
        return Tried(ordered, time.monotonic() - start)

    judge.ask(Waiting(ASKED[:1]), keep)
    if found().verdicts and not is_noise(found()):
        judge.ask(Waiting(ASKED[1:]), keep)
    return found()


def is_noise(found: Tried) -> bool:
    """Whether the letters have next to no probability."""
    return found.mass is not None and found.mass < NOISE


def is_opposite(found: Tried) -> bool:
    """Whether the worse answer is favoured throughout: letters that are exchanged, for example."""
    decided = [verdict for verdict in found.verdicts if verdict.first != 0.5]
    return len(decided) >= READABLE and found.right <= OPPOSITE


def record_of(found: Tried, *, words: bool, request: dict[str, Any], because: str | None) -> TrialRecord:
    """The record of a trial that settled how a judge is asked."""
    tokens = [verdict.tokens for verdict in found.verdicts if verdict.tokens]
    served = [verdict.served for verdict in found.verdicts if verdict.served]
    return TrialRecord(
        finished=now(),
        words=words,
        request=request,
        because=because,
        asked=len(found.outcomes),
        verdicts=len(found.verdicts),
        right=found.right,
        turned=found.turned,
        mass=found.mass,
        read=_mean([read for read, _ in tokens]),
        written=_mean([wrote for _, wrote in tokens]),
        seconds=round(found.seconds, 3),
        served=", ".join(dict.fromkeys(one["model"] for one in served if "model" in one)) or None,
    )


def trial_file(run: Run, name: str, determines: object) -> Path:
    """Where the trial of this very judge is kept."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    return run.path / "eval" / "trials" / f"{safe}-{sha256_of(determines)[:8]}" / "trial.json"


def in_words(record: TrialRecord) -> str:
    """What the judge did with the small questions."""
    return (
        f"{record.right} of {record.asked} small questions right (a coin: {record.asked // 2}), "
        f"{record.turned} of {len(PAIRS)} pairs turned with the order"
    )


def show(record: TrialRecord, name: str) -> None:
    """The trial on the console."""
    kind = "verdicts from its words" if record.words else "verdicts from log-probabilities"
    why = f" ({record.because})" if record.because else ""
    console.say(f"judge {name}: {kind}{why}")
    mass = f", {record.mass:.1%} of its probability on the letters" if record.mass is not None else ""
    took = (
        f"; {record.read:.0f} tokens read and {record.written:.0f} written each"
        if record.read and record.written
        else ""
    )
    served = f"; it answers as {record.served}" if record.served else ""
    console.say(f"  {in_words(record)}{mass}{took}{served}")
    if record.verdicts < record.asked:
        console.warn(f"{record.asked - record.verdicts} of its {record.asked} answers held no verdict")
    if record.right <= record.asked * 0.7:
        console.warn("it is no better than a coin on questions whose answer is known: its verdicts may be noise")
    if record.mass is not None and record.mass < GOOD_MASS:
        console.warn(f"only {record.mass:.1%} of its probability is on the letters: it does not follow the question")


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None
