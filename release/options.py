"""How a release is published: the recipe's wishes, with the command line over them."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from kto_release.errors import RecipeError
from kto_release.recipe import ReleaseSection
from kto_release.release.signing import SignWith

REF = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,200}")


class Options(NamedTuple):
    """What `kto-release publish` was asked for beside the recipe."""

    public: bool = False
    """Make the repository public, once everything has arrived and been verified."""
    gated: Literal["auto", "manual"] | None = None
    tag: str | None = None
    revision: str | None = None
    """Branch that is promoted to; null: main, or iteration-N for an iteration that is asked for."""
    pull_request: bool = False
    """Leave the release as a pull request, to be merged by a person."""
    read_back: bool = False
    """Download the weights again to verify them, rather than compare the Hub's hashes."""
    require: tuple[str, ...] = ()
    """Names of checks that must have passed, beside those that must not have failed."""
    replace_template: bool = False
    """Allow another chat template than the one trained with."""
    sign: SignWith | None = None
    """How to sign the release; null: unsigned."""
    iteration: int | None = None
    """Publish this iteration, on the branch iteration-N unless `revision` says otherwise; null: the last one."""
    each_iteration: bool = False
    """Publish the earlier iterations too, each on a branch of its own, before the last one."""
    remove_others: bool = False
    """Remove what people added to the repository, rather than leave it beside the release."""
    opens: bool = True
    """Change who may see the repository; not for the branches that come before the release itself."""


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
    remove_others: bool = False
    """Whether what people added to the repository is removed."""
    opens: bool = True
    """Whether visibility and access requests are set once all is verified."""


def check_iteration(options: Options, planned: int) -> None:
    """Raise `RecipeError` where an iteration is asked for that the recipe does not have."""
    if options.iteration is None:
        return
    if options.each_iteration:
        raise RecipeError("--iteration and --each-iteration don't go together", todo="leave one of them out")
    if not 1 <= options.iteration <= planned:
        raise RecipeError(f"--iteration {options.iteration}: the recipe has no such one", expected=f"1 to {planned}")


def target_of(section: ReleaseSection, options: Options) -> Target | None:
    """Flag over recipe; None where the recipe names no repository. Raises `RecipeError` for an impossible wish."""
    if section.repo_id is None:
        return None
    check_endpoint(section.endpoint)
    revision = branch(options)
    problems = [*_impossible(section, options, revision)]
    if problems:
        raise RecipeError.from_problems("what the Hub would refuse", problems, todo="mend the recipe, or the command")
    if options.pull_request and revision != "main":
        raise RecipeError(f"--pr opens a pull request to main, not to {revision!r}", todo="leave one of them out")
    return Target(
        repo_id=section.repo_id,
        revision=revision,
        private=section.private and not options.public,
        gated=options.gated or section.gated,
        # A tag names the release itself, not one of its branches.
        tag=options.tag or (section.tag if revision == "main" else None),
        pull_request=options.pull_request,
        predecessor=section.predecessor if revision == "main" else None,
        read_back=options.read_back,
        remove_others=options.remove_others,
        opens=options.opens,
    )


def _impossible(section: ReleaseSection, options: Options, revision: str) -> Iterator[str]:
    """Names that no repository, branch or tag of the Hub can have."""
    for key, name in (("release.repo_id", section.repo_id), ("release.predecessor", section.predecessor)):
        if name is not None and (why := _no_repository(name)) is not None:
            yield f"{key}: {name!r} is no repository: {why}"
    tags = ("release.tag", section.tag), ("--tag", options.tag)
    for key, ref in (*tags, ("--revision" if options.revision else "the branch", revision)):
        if ref is not None and not _is_ref(ref):
            yield f"{key}: {ref!r} can't be the name of a branch or tag in git"


def _no_repository(name: str) -> str | None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # exported, not in __all__

    if name.count("/") != 1:
        return "namespace/name is expected"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        return str(error).split(":")[0].strip().rstrip(".")
    return None


def _is_ref(name: str) -> bool:
    """Whether git takes a name for a branch or a tag: `git check-ref-format --branch`."""
    parts = name.split("/")
    return (
        REF.fullmatch(name) is not None
        and name != "@"
        and not name.startswith(("-", "refs/"))
        and not any(bad in name for bad in ("..", "@{"))
        and all(part and not part.startswith(".") and not part.endswith((".", ".lock")) for part in parts)
    )


def branch(options: Options) -> str:
    """The branch that is promoted to."""
    return options.revision or ("main" if options.iteration is None else f"iteration-{options.iteration}")


def check_endpoint(wanted: str | None) -> None:
    """Raise `RecipeError` where the recipe wants another Hub than the one that this process talks to."""
    from huggingface_hub import constants  # slow to import

    if wanted is not None and wanted.rstrip("/") != constants.ENDPOINT.rstrip("/"):
        raise RecipeError(
            f"release.endpoint is {wanted!r}, and HF_ENDPOINT leads to {constants.ENDPOINT!r}",
            expected="one Hub for all that is read and written",
            todo=f"export HF_ENDPOINT={wanted.rstrip('/')}, and log in there",
        )


def wished(section: ReleaseSection, options: Options) -> ReleaseSection:
    """The recipe's release section as the command line wants it."""
    return section.model_copy(
        update={
            "private": section.private and not options.public,
            "gated": options.gated or section.gated,
            "tag": options.tag or section.tag,
        }
    )
