"""Checks of what happens on the Hub, and what is left there for people to do."""

from kto_release.release.checks.item import HF, USERS, Items, Outcome, Subject, not_measured, passed

ITEMS = Items()


@ITEMS.item("staged", f"{USERS}: uploads that hang, and half a release on main")
def _staged(subject: Subject) -> Outcome:
    record = subject.found.published
    if record is None:
        return not_measured(
            "nothing was sent yet; it goes to a branch, is verified there, and is promoted in one commit"
        )
    return passed(f"{record.files} files at {record.commit[:12]}…: {record.verified}")


@ITEMS.item("repository", f"{USERS}: no rights, found out after hours")
def _repository(subject: Subject) -> Outcome:
    name = subject.section.repo_id
    if name is None:
        return not_measured("the recipe has no release.repo_id")
    if subject.found.published is not None:
        return passed(f"{name}: the token may write there")
    return not_measured(f"{name}: rights are looked at before the first byte is sent")


@ITEMS.item("visibility", f"{HF} (visibility, gated access)")
def _visibility(subject: Subject) -> Outcome:
    gate = f"gated ({subject.section.gated})" if subject.section.gated else "not gated"
    return passed(f"{'private until you open it' if subject.section.private else 'public once verified'}, {gate}")


@ITEMS.item("new-version", f"{HF} (new version)")
def _new_version(subject: Subject) -> Outcome:
    old = subject.section.predecessor
    return passed(f"the card of {old} gets new_version") if old else not_measured("the recipe names no predecessor")


@ITEMS.item("signed", f"{USERS}: no signatures")
def _signed(subject: Subject) -> Outcome:
    return passed("OpenSSF signature") if subject.found.signed else not_measured("not signed: who made it is not shown")


ITEMS.by_hand("collection", f"{HF} (collections)", "add it to a collection on the Hub yourself")
ITEMS.by_hand("demo", f"{HF} (demo)", "a Space is yours to make")
ITEMS.by_hand(
    "quantized",
    f"{HF} (quantised versions)",
    "none is made; theirs name this as base_model, base_model_relation: quantized",
)
ITEMS.by_hand("after-release", f"{HF} (sharing, community, usage)", "for people, after the release")
