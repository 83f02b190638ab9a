"""The release checklist: every check passed, failed or not measured, with its evidence.

What is asked: each item of Hugging Face's model release checklist, each complaint of people who publish models, and
what makes weights, template, data and scores trustworthy. A failed check stops publishing; one that was not measured
stops it where `--require` names it. The checks themselves are in checks/.
"""

from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.errors import RecipeError, ReleaseError
from kto_release.files import write_atomically
from kto_release.records import Facts
from kto_release.release.allowed import CHECKLIST
from kto_release.release.checks import card, hub, model, readers, scores
from kto_release.release.checks.item import State, Subject

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


def checklist(subject: Subject) -> Checklist:
    """Every check of a bundle, in a fixed order."""
    checks = []
    for item in [*model.ITEMS, *readers.ITEMS, *card.ITEMS, *scores.ITEMS, *hub.ITEMS]:
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
