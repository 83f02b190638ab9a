"""The licence of a release: resolved from those of the base model and the data, or stated and checked against them.

Whether a trained model is a work derived from its data is not settled in law. This table takes the careful view: what
the licence of any part asks of derived works, it asks of the model. It is no legal advice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kto_release.records import Facts


def _ids(*lines: str) -> frozenset[str]:
    """Ids of the Hub, separated by spaces."""
    return frozenset(" ".join(lines).split())


PERMISSIVE = _ids(
    "apache-2.0 mit afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear 0bsd blueoak-1.0.0",
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 ecl-2.0 etalab-2.0 isc ms-pl ncsa odc-by pddl postgresql",
    "unlicense wtfpl zlib",
    # These bind the data, and expressly not what is computed from it.
    "c-uda cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0",
)
COPYLEFT = {
    "cc-by-sa-3.0": ["cc-by-sa-4.0"],
    "cc-by-sa-4.0": ["gpl-3.0"],  # one-way compatible, as Creative Commons declares
    "cc-by-nc-sa-2.0": ["cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"],
    "cc-by-nc-sa-3.0": ["cc-by-nc-sa-4.0"],
    "cc-by-nc-sa-4.0": [],
    "gpl": ["gpl-3.0", "agpl-3.0"],
    "gpl-2.0": [],
    "gpl-3.0": ["agpl-3.0"],
    "agpl-3.0": [],
    "lgpl": ["lgpl-3.0", "gpl-3.0", "agpl-3.0"],
    "lgpl-2.1": ["gpl-2.0", "lgpl-3.0", "gpl-3.0", "agpl-3.0"],
    "lgpl-3.0": ["gpl-3.0", "agpl-3.0"],
    "mpl-2.0": ["lgpl-2.1", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0"],
    "epl-1.0": ["epl-2.0"],
    "epl-2.0": [],
    "eupl-1.1": ["gpl-2.0", "mpl-2.0", "epl-2.0", "osl-3.0", "agpl-3.0"],
    "eupl-1.2": ["gpl-2.0", "gpl-3.0", "mpl-2.0", "epl-2.0", "osl-3.0", "agpl-3.0"],
    "osl-3.0": [],
    "odbl": [],
    "gfdl": [],
    "lppl-1.3c": [],
    "ofl-1.1": [],
    "lgpl-lr": [],
}
"""Licences that must be passed on, and those that a derived work may have instead."""
CUSTOM = _ids(
    "openrail openrail++ bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m",
    "llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma deepfloyd-if-license apple-amlr apple-ascl intel-research",
    "h-research fair-noncommercial-research-license grok2-community open-mdw",
)
"""Licences with conditions of their own, which every derived work must carry on unchanged."""
NONCOMMERCIAL = _ids(
    "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0 deepfloyd-if-license apple-amlr intel-research h-research fair-noncommercial-research-license",
)
NO_DERIVATIVES = _ids("cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0")
KNOWN = {*PERMISSIVE, *COPYLEFT, *CUSTOM, *NONCOMMERCIAL, *NO_DERIVATIVES}
"""Ids of the Hub that this table understands."""
NO_ANSWER = {None, "", "unknown", "cc", "other"}
"""Ids that don't say what is allowed; "other" does with a name."""


class LicenseSource(Facts):
    """A part of the release with its licence."""

    part: Literal["base model", "data"]
    name: str
    """Hub id, or the name of local feedback."""
    id: str | None
    """As its card states it; null: not stated, or not to be had."""
    license_name: str | None = None
    """For the id "other"."""
    license_link: str | None = None

    @property
    def key(self) -> str | None:
        """What the licence is compared by; null: not known."""
        if self.id == "other" and self.license_name:
            return self.license_name
        return None if self.id in NO_ANSWER else self.id


class LicenseFacts(Facts):
    """The licence of the release, and why it is this one."""

    id: str | None
    """Null: not resolved; `problem` says why."""
    license_name: str | None = None
    license_link: str | None = None
    how: Literal["resolved", "stated"]
    sources: list[LicenseSource]
    conflicts: list[str]
    """What base model or data forbid, a line each."""
    override: str | None
    """The recipe's reason why the licence holds nevertheless."""
    problem: str | None
    """Why nothing may be published under it; null: nothing is wrong."""


class CardLicense(NamedTuple):
    """What a card's metadata says of its licence."""

    id: str | None
    name: str | None = None
    link: str | None = None


def conflict(source: str, license_id: str) -> str | None:
    """Why something derived from work under `source` can't be under `license_id`; None where it can."""
    why = None
    if source in NO_DERIVATIVES:
        why = "allows no derived works"
    elif source == license_id:
        why = None
    elif source in COPYLEFT and license_id not in COPYLEFT[source]:
        may_be = " or ".join([source, *COPYLEFT[source]])
        why = f"must be passed on: the release would have to be {may_be}"
    elif source in CUSTOM or source not in KNOWN:
        why = "has conditions of its own, which the release must carry on"
    elif source in NONCOMMERCIAL and license_id not in NONCOMMERCIAL:
        why = f"forbids commercial use, which {license_id} allows"
    elif source == "apache-2.0" and license_id == "gpl-2.0":
        why = "has patent terms that gpl-2.0 does not allow"
    return f"{source} {why}" if why else None


def resolve(license_id: str, override: str | None, sources: Sequence[LicenseSource]) -> LicenseFacts:
    """The licence of a release. `license_id` is the recipe's: an id of the Hub, or "auto".

    Never raises: what is wrong stands in `problem`, so that a dry run can show all of it. See `refuse`.
    """
    if license_id == "auto":
        return _resolved(override, sources)
    conflicts = _conflicts(license_id, sources)
    problem = None
    if conflicts and not override:
        problem = f"release.license {license_id!r} conflicts with what the release is made of"
    return LicenseFacts(
        id=license_id, how="stated", sources=list(sources), conflicts=conflicts, override=override, problem=problem
    )


def _resolved(override: str | None, sources: Sequence[LicenseSource]) -> LicenseFacts:
    unknown = [source.name for source in sources if source.key is None]
    if unknown or not sources:
        what = ", ".join(repr(name) for name in unknown) or "the base model and the data"
        return LicenseFacts(
            id=None,
            how="resolved",
            sources=list(sources),
            conflicts=[],
            override=override,
            problem=f"the licence of {what} is not known, so release.license: auto can't be resolved: "
            f"{_what_to_set(sources)}",
        )
    # The base model's licence first: the weights are its weights, changed.
    ordered = sorted(sources, key=lambda source: source.part != "base model")
    for candidate in ordered:
        if not _conflicts(str(candidate.key), sources):
            return LicenseFacts(
                id=candidate.id,
                license_name=candidate.license_name,
                license_link=candidate.license_link,
                how="resolved",
                sources=list(sources),
                conflicts=[],
                override=override,
                problem=None,
            )
    return LicenseFacts(
        id=None,
        how="resolved",
        sources=list(sources),
        conflicts=_conflicts(str(ordered[0].key), sources),
        override=override,
        problem="no licence fits both the base model and the data",
    )


def _what_to_set(sources: Sequence[LicenseSource]) -> str:
    """The keys that mend an unknown licence."""
    if any(source.key is None and source.part == "data" for source in sources):
        return "set release.data_license (a licence id, or `other` for private data of your own), or release.license"
    return "set release.license"


def data_source(name: str, stated: str | None) -> LicenseSource:
    """A part of the data under the licence that its card or the recipe states.

    What is no licence id of the Hub (`other`, `proprietary`, a name of one's own) are terms of their own: the release
    then carries them under the id "other".
    """
    if stated is None or stated in KNOWN or stated in ("", "unknown", "cc"):
        return LicenseSource(part="data", name=name, id=stated)
    own = "proprietary" if stated == "other" else stated
    return LicenseSource(part="data", name=name, id="other", license_name=own)


def _conflicts(license_id: str, sources: Sequence[LicenseSource]) -> list[str]:
    found = []
    for source in sources:
        # The id "other" stands for terms of one's own, and says no more than that they are kept.
        kept = source.id == license_id == "other"
        why = conflict(source.key, license_id) if source.key is not None and not kept else None
        if why:
            found.append(f"{source.part} {source.name}: {why}")
    return found


def license_in(readme: Path) -> CardLicense | None:
    """The licence that a card states; None where there is no card, or none in it."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        metadata: dict[str, Any] | None = metadata_load(readme)
    except (OSError, ValueError, YAMLError):
        return None
    return card_license(metadata or {})


def card_license(metadata: dict[str, Any]) -> CardLicense | None:
    """The licence in a card's metadata; several at once say nothing about how they hold together."""
    stated = metadata.get("license")
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if not isinstance(stated, str):
        return None
    name, link = metadata.get("license_name"), metadata.get("license_link")
    return CardLicense(stated.lower(), name if isinstance(name, str) else None, link if isinstance(link, str) else None)
