"""What `kto-release publish` shows before anything is sent."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kto_release import console
from kto_release.digests import file_sha256
from kto_release.records import ReleaseRecord
from kto_release.release.manifest import MANIFEST, Manifest
from kto_release.release.material import Material
from kto_release.release.options import Target
from kto_release.run import Run

if TYPE_CHECKING:
    from kto_release.release.checks.item import Checked


def size(count: int) -> str:
    """Bytes as a person reads them: 1.2 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise ValueError(count)


def show_missing(run: Run, material: Material) -> None:
    """What the run lacks, for a release that can't be made yet."""
    console.heading(f"{run.recipe.name}: not ready to be published")
    for line in material.missing:
        console.say(f"  missing  {line}")


def show_bundle(bundle: Path, manifest: Manifest) -> None:
    """Every file that would be sent."""
    listed = [(file.path, file.size, file.sha256) for file in manifest.files]
    path = bundle / MANIFEST
    listed.append((MANIFEST, path.stat().st_size, file_sha256(path)))
    rows = [(name, size(count), digest[:12]) for name, count, digest in sorted(listed)]
    console.table(f"The bundle {bundle}", ("file", "size", "sha256"), rows)
    console.say(f"{len(listed)} files, {size(sum(count for _, count, _ in listed))}")
    weights = manifest.weights
    console.say(
        f"weights: {weights.parameters:,} values in {weights.dtype}; {weights.changed_share:.1%} differ from the "
        "initial model's"
    )
    show_metadata(bundle)


def show_metadata(bundle: Path) -> None:
    """The card's metadata, as the Hub will read it."""
    text = (bundle / "README.md").read_text(encoding="utf-8")
    console.heading("The card's metadata")
    for line in text.split("---\n")[1].splitlines():
        console.say(f"  {line}")


def show_target(target: Target | None) -> None:
    """Where it would go, step by step."""
    from huggingface_hub import constants

    console.heading("What would be sent, and where to")
    if target is None:
        console.say("  nowhere: the recipe has no release.repo_id")
        return
    visible = "private" if target.private else "public, once it is verified"
    gate = f", gated ({target.gated})" if target.gated else ""
    console.say(f"  repository  {target.repo_id} at {constants.ENDPOINT} ({visible}{gate})")
    console.say("  1 stage     all files in one commit to a branch of their own; readers of main see nothing")
    how = (
        "every file is downloaded again and hashed"
        if target.read_back
        else "all files but the weights are downloaded again and hashed, the weights compared by the Hub's sha256"
    )
    console.say(f"  2 verify    {how}")
    if target.pull_request:
        console.say(f"  3 propose   as a pull request to {target.revision}; a person merges it")
        if target.tag or target.gated or not target.private:
            console.say("  4 then      the same command again sets tag, access and visibility")
    else:
        console.say(f"  3 promote   one commit to {target.revision}, pinned to the verified one; nothing is sent twice")
    if target.tag and not target.pull_request:
        console.say(f"  4 tag       {target.tag}")
    if target.predecessor:
        console.say(f"  then        new_version on the card of {target.predecessor}")


def show_changes(bundle: Path, target: Target) -> None:
    """What publishing would change on the Hub; asked for, never written."""
    from kto_release.release.hub.state import compare  # brings huggingface_hub

    changes = compare(bundle, target)
    if changes.note:
        console.say(f"  {changes.note}")
        return
    if changes.beside:
        console.say(f"  added by people, kept: {', '.join(changes.beside)}")
    if changes.foreign:
        named = ", ".join(changes.foreign)
        console.warn(f"this would be refused: programs would read {named} as parts of this release (--remove-others)")
    if not (changes.new or changes.changed or changes.removed):
        console.say(f"  {target.revision} holds exactly these files already")
        return
    console.say(f"  on {target.revision}: {changes.same} files stay as they are")
    for what, names in (("new", changes.new), ("changed", changes.changed), ("removed", changes.removed)):
        if names:
            console.say(f"  {what}: {', '.join(names)}")


def show_published(
    record: ReleaseRecord, *, changed: bool, beside: Collection[str] = (), removed: Collection[str] = ()
) -> None:
    """Where the release is now, what lies beside it, and what is no longer there."""
    console.heading("Published" if changed else "Published already: nothing was changed")
    where = record.pull_request or f"{record.endpoint}/{record.repo_id}"
    console.say(f"  {where} (commit {record.commit[:8]}{f', tag {record.tag}' if record.tag else ''})")
    console.say(f"  verified: {record.verified}")
    for what, names in (("added by people, kept", beside), ("removed", removed if changed else ())):
        if names:
            console.say(f"  {what}: {', '.join(sorted(names))}")


def show_checked(where: str, checked: "Sequence[Checked]") -> None:
    """What `kto-release verify` looked at."""
    console.table(f"Verifying {where}", ("what", "", "evidence"), [tuple(item) for item in checked])
