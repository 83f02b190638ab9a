"""The release checklist: every check passed, failed or not measured, with its evidence.

What is asked: each item of Hugging Face's model release checklist, each complaint of people who publish models, and
what makes weights, template, data and scores trustworthy. A failed check stops publishing; one that was not measured
stops it where `--require` names it. The checks themselves are in the modules `check_*`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from kto_release import console
from kto_release.errors import RecipeError, ReleaseError
from kto_release.files import write_atomically
from kto_release.recipe import ReleaseSection
from kto_release.records import Facts, ReleaseRecord, ReloadFacts
from kto_release.release.facts import CardFacts

CHECKLIST = "checklist.json"

HF = "Hugging Face's model release checklist"
USERS = "complaint of people who publish models"
OURS = "kto-release"

State = Literal["passed", "failed", "not measured"]
STYLES = {"passed": "✓", "failed": "✗", "not measured": "–"}


class Check(Facts):
    """One item."""

    name: str
    """What --require calls it."""
    state: State
    evidence: str
    """What was seen, or why nothing could be."""
    asked_by: str
    """Where the item comes from."""


class Checklist(Facts):
    """checklist.json."""

    made_by: str
    checks: list[Check]


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


def checklist(subject: Subject) -> Checklist:
    """Every check of a bundle, in a fixed order."""
    from kto_release.release.checks import card, model, scores

    checks = []
    for item in [*model.ITEMS, *card.ITEMS, *scores.ITEMS]:
        state, evidence = item.look(subject)
        checks.append(Check(name=item.name, state=state, evidence=evidence, asked_by=item.asked_by))
    return Checklist(made_by=subject.facts.made_by, checks=checks)


def write_checklist(folder: Path, made: Checklist) -> None:
    """Save the checklist in a folder."""
    write_atomically(folder / CHECKLIST, made.model_dump_json(indent=2) + "\n")


def show_checklist(made: Checklist) -> None:
    """The checklist as a table, what failed last, where it is seen."""
    order = ["passed", "not measured", "failed"]
    checks = sorted(made.checks, key=lambda check: order.index(check.state))
    rows = [(f"{STYLES[check.state]} {check.state}", check.name, check.evidence) for check in checks]
    console.table("Release checklist", ("state", "check", "evidence"), rows)
    counts = {state: sum(check.state == state for check in made.checks) for state in order}
    console.say(", ".join(f"{count} {state}" for state, count in counts.items()))


def refuse(made: Checklist, require: Sequence[str] = ()) -> None:
    """Raise `ReleaseError` with every failed check, and every required one that did not pass.

    Raises `RecipeError` where `require` names a check that does not exist.
    """
    checks = {check.name: check for check in made.checks}
    unknown = [name for name in require if name not in checks]
    if unknown:
        raise RecipeError(
            f"--require {', '.join(unknown)}: no such check", expected=f"some of {', '.join(sorted(checks))}"
        )
    wrong = [check for check in made.checks if check.state == "failed"]
    wrong += [checks[name] for name in dict.fromkeys(require) if checks[name].state == "not measured"]
    if wrong:
        lines = [f"  - {check.name}: {check.state}: {check.evidence}" for check in wrong]
        count = "1 check of the release stops it" if len(wrong) == 1 else f"{len(wrong)} checks of the release stop it"
        raise ReleaseError(f"{count}:\n" + "\n".join(lines), todo="mend what they name, then publish again")
