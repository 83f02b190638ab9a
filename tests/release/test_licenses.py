"""The licence of a release follows from its parts; what they forbid is an error unless a reason is recorded."""

from pathlib import Path

import pytest

from kto_release.release.licenses import CardLicense, LicenseSource, conflict, license_in, resolve


def base(license_id: str | None, name: str | None = None) -> LicenseSource:
    return LicenseSource(part="base model", name="org/base", id=license_id, license_name=name)


def data(license_id: str | None) -> LicenseSource:
    return LicenseSource(part="data", name="org/data", id=license_id)


@pytest.mark.parametrize(
    ("base_id", "data_id", "resolved"),
    [
        ("apache-2.0", "apache-2.0", "apache-2.0"),
        ("apache-2.0", "mit", "apache-2.0"),
        ("mit", "apache-2.0", "mit"),
        ("mit", "cdla-sharing-1.0", "mit"),
        ("apache-2.0", "cc-by-4.0", "apache-2.0"),
        ("apache-2.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", "apache-2.0", "cc-by-nc-4.0"),
        ("apache-2.0", "cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("apache-2.0", "gpl-3.0", "gpl-3.0"),
        ("gpl-3.0", "cc-by-sa-4.0", "gpl-3.0"),
        ("lgpl-3.0", "agpl-3.0", "agpl-3.0"),
        ("llama3", "apache-2.0", "llama3"),
        ("apache-2.0", "gemma", "gemma"),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
    ],
)
def test_the_strictest_part_decides(base_id: str, data_id: str, resolved: str) -> None:
    """The default takes the base model's licence where the data allow it, else the data's where it does."""
    facts = resolve("auto", None, [base(base_id), data(data_id)])
    assert (facts.id, facts.problem, facts.conflicts, facts.how) == (resolved, None, [], "resolved")


@pytest.mark.parametrize(
    ("base_id", "data_id", "conflicts"),
    [
        (
            "llama3",
            "cc-by-nc-4.0",
            ["data org/data: cc-by-nc-4.0 forbids commercial use, which llama3 allows"],
        ),
        (
            "llama3",
            "gemma",
            ["data org/data: gemma has conditions of its own, which the release must carry on"],
        ),
        (
            "gpl-3.0",
            "cc-by-nc-sa-4.0",
            ["data org/data: cc-by-nc-sa-4.0 must be passed on: the release would have to be cc-by-nc-sa-4.0"],
        ),
        ("apache-2.0", "cc-by-nd-4.0", ["data org/data: cc-by-nd-4.0 allows no derived works"]),
        ("cc-by-nd-4.0", "apache-2.0", ["base model org/base: cc-by-nd-4.0 allows no derived works"]),
        ("apache-2.0", "gpl-2.0", ["data org/data: gpl-2.0 must be passed on: the release would have to be gpl-2.0"]),
    ],
)
def test_parts_that_exclude_each_other_resolve_to_nothing(base_id: str, data_id: str, conflicts: list[str]) -> None:
    """Where no licence fits both, nothing is chosen, and publishing is refused with the reason."""
    facts = resolve("auto", None, [base(base_id), data(data_id)])
    assert (facts.id, facts.conflicts) == (None, conflicts)
    assert facts.problem == "no licence fits both the base model and the data"


def test_an_unknown_licence_is_never_guessed() -> None:
    """The default needs every part's licence; a missing one, or one that says nothing, is named."""
    for unknown in (None, "unknown", "other", "cc"):
        facts = resolve("auto", None, [base("apache-2.0"), data(unknown)])
        assert facts.id is None
        assert facts.problem == (
            "the licence of 'org/data' is not known, so release.license: auto can't be resolved: set release.data_license "
            "(a licence id, or `other` for private data of your own), or release.license"
        )


def test_a_stated_licence_needs_no_lookup() -> None:
    """A licence that the recipe states holds although a part's is unknown, and stands as stated."""
    facts = resolve("apache-2.0", None, [base(None), data("apache-2.0")])
    assert (facts.id, facts.how, facts.problem) == ("apache-2.0", "stated", None)


def test_a_stated_licence_that_conflicts_needs_a_reason_which_is_kept() -> None:
    """A stated licence that a part forbids is refused; with a reason it passes, and both are recorded."""
    parts = [base("apache-2.0"), data("cc-by-nc-4.0")]
    expected = ["data org/data: cc-by-nc-4.0 forbids commercial use, which apache-2.0 allows"]
    refused = resolve("apache-2.0", None, parts)
    assert refused.conflicts == expected
    assert refused.problem is not None
    assert "'apache-2.0' conflicts with what the release is made of" in refused.problem
    allowed = resolve("apache-2.0", "Its owner gave us leave.", parts)
    assert allowed.problem is None
    assert (allowed.id, allowed.conflicts, allowed.override) == ("apache-2.0", expected, "Its owner gave us leave.")


def test_a_named_licence_goes_on_with_name_and_link() -> None:
    """A base model under its maker's own licence gives that licence, by its name and link, and binds."""
    own = LicenseSource(
        part="base model",
        name="org/base",
        id="other",
        license_name="tongyi-qianwen",
        license_link="https://example.org/LICENSE",
    )
    facts = resolve("auto", None, [own, data("mit")])
    assert (facts.id, facts.license_name, facts.license_link) == (
        "other",
        "tongyi-qianwen",
        "https://example.org/LICENSE",
    )
    assert conflict("tongyi-qianwen", "mit") == (
        "tongyi-qianwen has conditions of its own, which the release must carry on"
    )


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("license: Apache-2.0", CardLicense("apache-2.0")),
        ("license: [mit]", CardLicense("mit")),
        ("license: [mit, apache-2.0]", None),
        ("license: 7", None),
        ("language: en", None),
        (
            "license: other\nlicense_name: own\nlicense_link: https://example.org",
            CardLicense("other", "own", "https://example.org"),
        ),
        ("license: [unclosed", None),
    ],
)
def test_a_card_states_its_licence(tmp_path: Path, front: str, expected: CardLicense | None) -> None:
    """The licence is read from a card's metadata; several, none or broken metadata give none."""
    readme = tmp_path / "README.md"
    readme.write_text(f"---\n{front}\n---\nA model.\n", encoding="utf-8")
    assert license_in(readme) == expected


def test_no_card_states_no_licence(tmp_path: Path) -> None:
    """A folder without a card has no known licence."""
    assert license_in(tmp_path / "README.md") is None
