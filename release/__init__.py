"""The release: collect → check → render → bundle → push → verify.

`publish` is the story of the stage. Everything is proved before the first byte leaves; a dry run sends nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from kto_release import console
from kto_release.errors import ReleaseError
from kto_release.records import ReleaseRecord
from kto_release.release.bundle import build, collect
from kto_release.release.manifest import MANIFEST, read_manifest
from kto_release.release.options import Options, Target, target_of
from kto_release.release.show import show_bundle, show_missing, show_target
from kto_release.run import Run, environment, file_sha256, now, read_record, write_record

if TYPE_CHECKING:
    from kto_release.release.hub import Pushed

__all__ = ["Options", "publish"]


def publish(run: Run, *, dry_run: bool = False, options: Options | None = None) -> None:
    """Make the bundle of the run's last iteration, check it, and push it to the Hub; `dry_run` sends nothing.

    Raises `ReleaseError` where a check fails, `HubError` where the Hub refuses.
    """
    from huggingface_hub import constants

    from kto_release.release.hub import push

    options = options or Options()
    target = target_of(run.recipe.release, options)
    material = collect(run)
    if not material.iterations or material.base is None:
        if not dry_run:
            raise ReleaseError(
                "there is nothing to publish yet:\n" + "\n".join(f"  - {line}" for line in material.missing),
                todo="kto-release train, then kto-release eval",
            )
        show_missing(run, material)
        show_target(target, constants.ENDPOINT)
        return
    with run.lock():
        bundle = build(run, material)
        manifest = read_manifest(bundle / MANIFEST)
        show_bundle(bundle, manifest)
        show_target(target, constants.ENDPOINT)
        if dry_run:
            console.say("Nothing was sent.")
            return
        if target is None:
            raise ReleaseError("the recipe has no release.repo_id", expected="namespace/name", todo="add it")
        pushed = push(bundle, manifest.digest, target)
        _record(run, bundle, target, pushed)


def _record(run: Run, bundle: Path, target: Target, pushed: "Pushed") -> None:
    """Write release/record.json, unless it says the same already, and say where the release is."""
    from huggingface_hub import constants

    files = [path for path in bundle.rglob("*") if path.is_file()]
    record = ReleaseRecord(
        finished=now(),
        repo_id=target.repo_id,
        endpoint=constants.ENDPOINT,
        commit=pushed.commit,
        tag=target.tag,
        private=target.private,
        pull_request=pushed.pull_request,
        release_sha256=file_sha256(bundle / MANIFEST),
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        verified=pushed.verified,
        environment=environment(),
    )
    path = run.release_folder / "record.json"
    old = read_record(path, ReleaseRecord)
    same = {"finished", "environment", "verified"}
    if old is None or old.model_dump(exclude=same) != record.model_dump(exclude=same):
        write_record(path, record)
    where = pushed.pull_request or f"{constants.ENDPOINT}/{target.repo_id}"
    console.heading("Published" if pushed.changed else "Published already: nothing was changed")
    console.say(f"  {where} (commit {pushed.commit[:8]})")
    console.say(f"  {pushed.verified}")
