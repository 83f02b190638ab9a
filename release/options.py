"""How a release is published: the recipe's wishes, with the command line over them."""

from pathlib import Path
from typing import Literal, NamedTuple

from kto_release.recipe import ReleaseSection


class Options(NamedTuple):
    """What `kto-release publish` was asked for beside the recipe."""

    public: bool = False
    """Make the repository public, once everything has arrived and been verified."""
    gated: Literal["auto", "manual"] | None = None
    tag: str | None = None
    revision: str = "main"
    """Branch that is promoted to."""
    pull_request: bool = False
    """Leave the release as a pull request, to be merged by a person."""
    read_back: bool = False
    """Download the weights again to verify them, rather than compare the Hub's hashes."""
    require: tuple[str, ...] = ()
    """Names of checks that must have passed, beside those that must not have failed."""
    replace_template: bool = False
    """Allow another chat template than the one trained with."""
    sign_key: Path | None = None
    """Private key (PEM) to sign the release with."""


class Target(NamedTuple):
    """Where to, and how visible."""

    repo_id: str
    revision: str
    private: bool
    gated: Literal["auto", "manual"] | None
    tag: str | None
    pull_request: bool
    predecessor: str | None
    read_back: bool


def target_of(section: ReleaseSection, options: Options) -> Target | None:
    """Flag over recipe; None where the recipe names no repository."""
    if section.repo_id is None:
        return None
    return Target(
        repo_id=section.repo_id,
        revision=options.revision,
        private=section.private and not options.public,
        gated=options.gated or section.gated,
        tag=options.tag or section.tag,
        pull_request=options.pull_request,
        predecessor=section.predecessor,
        read_back=options.read_back,
    )
