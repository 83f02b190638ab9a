"""The release: collect → check → render → bundle → push → verify.

`publish` is the story of the stage: everything is proved before the first byte leaves, and a dry run sends nothing.
`verify` is for whoever receives the release.
"""

from pathlib import Path

from kto_release import console
from kto_release.digests import file_sha256
from kto_release.errors import ReleaseError
from kto_release.files import read_record, write_record
from kto_release.provenance import environment, now
from kto_release.records import ReleaseRecord
from kto_release.release.bundle import Bundle, build
from kto_release.release.chat_template import replay
from kto_release.release.checklist import checklist, refuse, show_checklist, write_checklist
from kto_release.release.gguf.companion import SUFFIX, Companion, make, show
from kto_release.release.gguf.companion import refuse as refuse_companion
from kto_release.release.manifest import MANIFEST
from kto_release.release.material import Material, collect
from kto_release.release.options import Options, Target, check_iteration, target_of
from kto_release.release.screen import (
    show_bundle,
    show_changes,
    show_checked,
    show_missing,
    show_published,
    show_target,
)
from kto_release.release.signing import Trust
from kto_release.release.verify import check_release
from kto_release.run import Run

__all__ = ["Options", "publish", "verify"]


def publish(run: Run, *, dry_run: bool = False, options: Options | None = None) -> None:
    """Make the bundle of an iteration (the last one), check it, and push it to the Hub; `dry_run` sends nothing.

    Raises `ReleaseError` where something is missing or a check fails, `HubError` where the Hub refuses.
    """
    options = options or Options()
    check_iteration(options, run.recipe.data.iterations)
    target = target_of(run.recipe.release, options)
    material = collect(run, options.iteration)
    if not material.ready:
        if not dry_run:
            raise ReleaseError(
                "there is nothing to publish yet:\n" + "\n".join(f"  - {line}" for line in material.missing),
                todo="kto-release train, then kto-release eval",
            )
        show_missing(run, material)
        show_target(target)
        return
    if options.each_iteration and options.iteration is None:
        for number in range(1, len(material.iterations)):
            # Opened last: a reader must not find an empty main.
            earlier = options._replace(each_iteration=False, iteration=number, revision=None, tag=None, opens=False)
            publish(run, dry_run=dry_run, options=earlier)
    with run.lock():
        bundle = build(run, material, options)
        show_bundle(bundle.path, bundle.manifest)
        show_target(target)
        if dry_run and target is not None:
            show_changes(bundle.path, target)
        show_checklist(bundle.checklist)
        approve(material, bundle, options, dry_run=dry_run)
        made = companion_of(run, material, bundle, dry_run=dry_run) if options.iteration is None else None
        if dry_run:
            console.say("Nothing was sent.")
        elif target is not None:
            send(material, bundle, target)
            if made is not None and not target.pull_request:
                send_companion(made, target)


def approve(material: Material, bundle: Bundle, options: Options, *, dry_run: bool) -> None:
    """Stop where the run lacks what a release needs, or a check says no; a dry run only says that it would."""
    try:
        refuse_lacking(material)
        refuse(bundle.checklist, options.require)
    except ReleaseError as error:
        if not dry_run:
            raise
        console.warn(f"this would be refused. {error}")


def companion_of(run: Run, material: Material, bundle: Bundle, *, dry_run: bool) -> Companion | None:
    """The GGUF files that the recipe asks for, made and measured; None where it asks for none.

    Raises `ReleaseError` where one keeps too little, or llama.cpp reads it otherwise; a dry run only says so.
    """
    section = run.recipe.release
    if not section.gguf:
        return None
    iteration = run.iteration(len(material.iterations))
    folder = material.folder / "gguf"
    made = make(bundle.path, folder, section.gguf, bundle.subject.facts, iteration, limit=section.min_kept)
    show(made)
    try:
        refuse_companion(made)
    except ReleaseError as error:
        if not dry_run:
            raise
        console.warn(f"this would be refused. {error}")
    return made


def send_companion(made: Companion, target: Target) -> None:
    """Push the GGUF files to the repository beside the release's."""
    from kto_release.release.hub.push import push  # brings huggingface_hub

    beside = target._replace(repo_id=target.repo_id + SUFFIX, revision="main", tag=None, predecessor=None)
    pushed = push(made.folder, file_sha256(made.folder / "gguf.json"), beside)
    console.say(f"GGUF: {beside.repo_id} (commit {pushed.commit[:8]}); verified: {pushed.verified}")


def refuse_lacking(material: Material) -> None:
    """Raise `ReleaseError` where the run lacks something that a release must have."""
    if material.lacking:
        listed = "\n".join(f"  - {line}" for line in material.lacking)
        raise ReleaseError(f"this can't be published yet:\n{listed}", todo="complete the run, or the recipe")


def send(material: Material, bundle: Bundle, target: Target) -> None:
    """Push a checked bundle, and record what was sent, where it is, and the checklist with that."""
    from huggingface_hub import constants

    from kto_release.release.hub.push import push  # brings huggingface_hub

    pushed = push(bundle.path, bundle.manifest.digest, target, proof=prove)
    files = [path for path in bundle.path.rglob("*") if path.is_file()]
    record = ReleaseRecord(
        finished=now(),
        repo_id=target.repo_id,
        endpoint=constants.ENDPOINT,
        commit=pushed.commit,
        tag=target.tag,
        private=pushed.private,
        pull_request=pushed.pull_request,
        release_sha256=file_sha256(bundle.path / MANIFEST),
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        verified=pushed.verified,
        environment=environment(),
    )
    path = material.folder / "record.json"
    old = read_record(path, ReleaseRecord)
    this_time = {"finished", "environment", "verified"}
    if old is None or old.model_dump(exclude=this_time) != record.model_dump(exclude=this_time):
        write_record(path, record)
    # Only now is known what happens on the Hub; the list in the release itself was made before, and stays.
    found = bundle.subject.found._replace(published=record)
    write_checklist(material.folder, checklist(bundle.subject._replace(found=found)))
    show_published(record, changed=pushed.changed, beside=pushed.beside, removed=pushed.removed)
    if pushed.trouble is not None:
        raise pushed.trouble


def prove(folder: Path) -> str:
    """The tokenizer and the template that came back give the ids that were recorded. Raises `ReleaseError`."""
    return f"tokenizer and template loaded from there give the ids of {replay(folder)} conversations"


def verify(
    where: str,
    *,
    revision: str | None = None,
    rescore: bool = False,
    lc_data: Path | None = None,
    trust: Trust | None = None,
) -> None:
    """Check a release that was received, in a folder or on the Hub. Raises `ReleaseError` that names what is wrong."""
    checked = check_release(where, revision=revision, rescore=rescore, lc_data=lc_data, trust=trust)
    show_checked(where, checked)
    failed = [item for item in checked if item.state == "failed"]
    if failed:
        raise ReleaseError(
            f"{where!r} is not the release that was made:\n"
            + "\n".join(f"  - {item.what}: {item.evidence}" for item in failed),
            todo="don't use this copy; download the release again, or ask its maker",
        )
