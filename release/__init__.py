"""The release: collect → check → render → bundle → push → verify.

`publish` is the story of the stage. Everything is proved before the first byte leaves; a dry run sends nothing.
"""

from kto_release import console
from kto_release.errors import ReleaseError
from kto_release.release.bundle import build, collect
from kto_release.release.manifest import MANIFEST, read_manifest
from kto_release.release.options import Options, target_of
from kto_release.release.show import show_bundle, show_missing, show_target
from kto_release.run import Run

__all__ = ["Options", "publish"]


def publish(run: Run, *, dry_run: bool = False, options: Options | None = None) -> None:
    """Make the bundle of the run's last iteration, check it, and push it to the Hub; `dry_run` sends nothing.

    Raises `ReleaseError` where a check fails, `HubError` where the Hub refuses.
    """
    from huggingface_hub import constants

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
