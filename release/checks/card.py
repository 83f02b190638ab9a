"""Checks of the card and of its metadata."""

from collections.abc import Callable

from kto_release.release.allowed import README
from kto_release.release.card import metadata, metadata_problems
from kto_release.release.checks.item import HF, USERS, Items, Outcome, Subject, failed, not_measured, passed

ITEMS = Items()

REQUIRED_METADATA = ("language", "license", "library_name", "pipeline_tag", "tags")


@ITEMS.item("metadata-valid", f"{USERS}: metadata refused after gigabytes were sent")
def _metadata_valid(subject: Subject) -> Outcome:
    wrong = metadata_problems(metadata(subject.facts))
    if wrong:
        return failed("; ".join(wrong))
    return passed("known licence, language codes, Hub ids, no placeholders; the Hub's own check runs when it is sent")


@ITEMS.item("metadata-complete", f"{HF} (metadata, library, pipeline tag)")
def _metadata_complete(subject: Subject) -> Outcome:
    plain = metadata(subject.facts)
    absent = [key for key in REQUIRED_METADATA if not plain.get(key)]
    return failed(f"the card lacks {', '.join(absent)}") if absent else passed(", ".join(plain))


@ITEMS.item("license", f"{HF} (license); {USERS}: wrong or missing licences")
def _license(subject: Subject) -> Outcome:
    license_ = subject.facts.license
    if license_.problem:
        return failed("; ".join([license_.problem, *license_.conflicts]))
    unknown = [source.name for source in license_.sources if source.key is None]
    if unknown:
        return not_measured(f"{license_.id} is stated; the licence of {', '.join(unknown)} is not known")
    if license_.conflicts:
        return passed(f"{license_.id}, overriding {'; '.join(license_.conflicts)}: {license_.override}")
    return passed(f"{license_.license_name or license_.id}, {license_.how}, fits base model and data")


@ITEMS.item("base-model", f"{HF} (base model); {USERS}: a base model lost on local paths")
def _base_model(subject: Subject) -> Outcome:
    base = subject.facts.base
    if base.hub_id is None:
        return not_measured(f"{base.name} is a local folder, and nothing in it names an ancestor on the Hub")
    revision = f" at {base.revision[:12]}…" if base.revision else ", whose commit is not recorded"
    return passed(f"finetune of {base.hub_id}{revision}" + (", through a local copy" if base.traced else ""))


@ITEMS.item("datasets", f"{HF} (linking datasets)")
def _datasets(subject: Subject) -> Outcome:
    names = subject.facts.datasets
    return (
        passed(", ".join(names)) if names else not_measured("the feedback is not on the Hub: the card names its files")
    )


@ITEMS.item("results-in-metadata", f"{USERS}: results in no format that the Hub reads")
def _results_in_metadata(subject: Subject) -> Outcome:
    index = metadata(subject.facts).get("model-index") or []
    names = [metric["name"] for entry in index for result in entry["results"] for metric in result["metrics"]]
    if not names:
        return not_measured("no result can be relied on, so none is in the metadata")
    return passed("; ".join(names))


def _in_card(name: str, asked_by: str, heading: str, why_not: Callable[[Subject], str | None], good: str) -> None:
    """Enter a check that a part of the card is there and says something."""

    def look(subject: Subject) -> Outcome:
        try:
            text = (subject.bundle / README).read_text(encoding="utf-8")
        except OSError:
            return failed("there is no card")
        if f"\n## {heading}\n" not in text:
            return failed(f"the card has no part {heading!r}")
        why = why_not(subject)
        return not_measured(why) if why else passed(good)

    ITEMS.item(name, asked_by)(look)


def _no_limits(subject: Subject) -> str | None:
    return (
        None if subject.facts.limits else "the recipe's release.limits says nothing: the card has general limits only"
    )


def _no_summary(subject: Subject) -> str | None:
    return (
        None if subject.facts.summary else "the recipe's release.summary says nothing: the card says what it is made of"
    )


_in_card("card-description", f"{HF} (description)", "What it is", _no_summary, "the recipe's own words, and the facts")
_in_card("card-usage", f"{HF} (usage examples)", "How to run it", lambda _: None, "programs for Transformers and vLLM")
_in_card(
    "card-specifications", f"{HF} (specifications)", "How it was made", lambda _: None, "per iteration, from records"
)
_in_card(
    "card-limits", f"{HF} (limitations and biases)", "Limits", _no_limits, "the recipe's own words, and general ones"
)
_in_card(
    "card-papers",
    f"{HF} (papers); {USERS}: asked for paper links afterwards",
    "More",
    lambda _: None,
    "arXiv:2402.01306 linked, BibTeX for all",
)
ITEMS.by_hand(
    "card-snippets-run", f"{HF} (verify snippets)", "kto-release's tests run them on a small model, not on this one"
)
ITEMS.by_hand("card-visuals", f"{HF} (visual examples)", "asked of models that make pictures; this one writes text")


@ITEMS.item("carbon", f"{HF} (carbon emissions)")
def _carbon(subject: Subject) -> Outcome:
    emissions = subject.facts.emissions
    if emissions is not None:
        return passed(f"{emissions.grams:g} g of CO2 equivalents, by {emissions.source}, as the recipe states")
    hours = sum(record.training.seconds for record in subject.facts.iterations) / 3600
    return not_measured(f"emissions are not measured; the card has {hours:.2f} hours and the hardware")
