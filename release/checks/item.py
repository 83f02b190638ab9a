"""What a check is: what it looks at, what it may say, and how a file of checks enters its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from kto_release.recipe import ReleaseSection
from kto_release.records import ReleaseRecord, ReloadFacts
from kto_release.release.facts import CardFacts

HF = "Hugging Face's model release checklist"
USERS = "complaint of people who publish models"
OURS = "kto-release"

State = Literal["passed", "failed", "not measured"]


class Found(NamedTuple):
    """What other parts of the stage found out; null: they did not look."""

    conversations: int | None = None
    """Sample conversations whose ids the published template was proved to give."""
    reload: ReloadFacts | None = None
    secrets: Sequence[str] | None = None
    """What the scan for secrets and local paths found, a line each."""
    signed: bool = False
    published: ReleaseRecord | None = None
    """The record of having published this very bundle."""


class Subject(NamedTuple):
    """What is checked."""

    facts: CardFacts
    section: ReleaseSection
    bundle: Path
    """The folder that will be published, complete but for checklist and manifest."""
    found: Found


class Outcome(NamedTuple):
    """What one check says."""

    state: State
    evidence: str


class Checked(NamedTuple):
    """An outcome and what it is of, for what has no entry in a list of checks."""

    what: str
    state: State
    evidence: str


Look = Callable[[Subject], Outcome]


class Item(NamedTuple):
    """A check before it is made."""

    name: str
    asked_by: str
    look: Look


class Items(list[Item]):
    """The checks of one module, entered by decorators in the order that they are shown in."""

    def item(self, name: str, asked_by: str) -> Callable[[Look], Look]:
        """Enter a check."""

        def enter(look: Look) -> Look:
            self.append(Item(name, asked_by, look))
            return look

        return enter

    def by_hand(self, name: str, asked_by: str, why: str) -> None:
        """Enter an item that only a person can see to."""
        self.append(Item(name, asked_by, lambda _: not_measured(why)))


def passed(evidence: str) -> Outcome:
    """The item holds."""
    return Outcome("passed", evidence)


def failed(evidence: str) -> Outcome:
    """The item does not hold: nothing may be published."""
    return Outcome("failed", evidence)


def not_measured(evidence: str) -> Outcome:
    """Nothing here can say whether the item holds."""
    return Outcome("not measured", evidence)
