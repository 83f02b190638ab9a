"""What a judge is: it is asked questions, and gives for each a verdict or the reason why it has none.

It never decides what counts.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, Protocol

from kto_release.engines import Model
from kto_release.records import JudgeFacts

Order = Literal["reference_first", "answer_first"]


class Question(NamedTuple):
    """Which of two answers is better? One request to a judge."""

    key: str
    """Digest of everything that determines the verdict."""
    pair: int
    """Which pair of answers it is about."""
    order: Order
    instruction: str
    first: str
    """Shown in the first place, as "m"."""
    second: str
    """Shown in the second place, as "M"."""


class Verdict(NamedTuple):
    """What a judge said."""

    first: float
    """Probability that the first answer is better, in [0, 1]: of the two letters' mass, the share of the first's."""
    mass: float | None
    """Probability mass on the two letters; null where it is not known."""
    raw: dict[str, Any] | None = None
    """The judge's own words, in alpaca_eval's form."""
    tokens: tuple[int, int] | None = None
    """Read and written, as the judge counts them."""
    price: float | None = None
    """USD; null where it is not known."""
    seconds: float | None = None
    tries: int = 1
    flagged: str | None = None
    """Why this verdict may have been tampered with."""
    served: dict[str, str] | None = None
    """What answered, by its own word: model, fingerprint, provider; null where it does not say."""
    characters: int | None = None
    """Of the question as it was sent, for an endpoint that may cut it; null where none can."""
    unreadable: int = 0
    """Answers to this question that held no verdict."""


class Load(NamedTuple):
    """What an evaluation will ask."""

    questions: int
    characters: int
    """Of instructions and answers in them, together."""


class Failure(NamedTuple):
    """Why there is no verdict."""

    reason: str
    tries: int = 1
    unreadable: int = 0
    """Answers that held no verdict."""
    passing: bool = False
    """Whether asking later may help: nothing was learnt about the question."""


Done = Callable[[Question, Verdict | Failure], None]
"""Told each outcome as soon as there is one; called in one thread, and trusted to keep it."""


class Questions(Iterable[Question], Protocol):
    """Questions that may still come while others are being asked; a list of them is one too."""

    def abandon(self) -> None:
        """Nobody asks any longer: whoever waits for a question gets none."""


class Judge(Protocol):
    """Something that compares."""

    facts: JudgeFacts
    beside: bool
    """Whether it can judge while answers are still generated: it needs no device of ours."""
    trial: str | None
    """What it did with small questions whose answer is known; null where it was not asked them."""
    determines: dict[str, Any]
    """What of this judge determines a verdict: it goes into the key of every question."""

    @property
    def occupies(self) -> Model | None:
        """The model that it loads on a device of ours; null: none."""

    @property
    def longest(self) -> int:
        """Tokens that an engine of that model must have room for."""

    def affords(self, questions: int, characters: int, /) -> bool:
        """Whether so many questions, with so many characters of instructions and answers, are within max_cost."""

    def priced(self, load: Load, /) -> str:
        """What so many questions take and cost, in words."""

    def prepare(self, questions: int, characters: int) -> None:
        """Before the first question: is it usable, and affordable? Raises `JudgeError` where it is not."""

    def ask(self, questions: Questions, done: Done) -> None:
        """Every question once. Raises `JudgeError` for a failure that asking again would not mend."""


def determining(facts: JudgeFacts) -> dict[str, Any]:
    """The facts that determine a verdict; a judge's short name, and whether both orders are asked, do not."""
    determined = facts.model_dump(include={"kind", "model", "endpoint", "prompt_sha256", "parameters"})
    return {**determined, "words": facts.votes} if facts.words else determined
