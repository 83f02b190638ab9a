"""What a stranger runs against a published release: `kto-release verify REPO_OR_DIR`.

It needs no GPU, no recipe and no trust in us: the manifest, every file's sha256, a signature if there is one; then, in
a child process with limits, the token ids that the template must give, and every number against the others.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from kto_release import __version__
from kto_release.digests import file_sha256
from kto_release.errors import HubError, ReleaseError
from kto_release.release.allowed import CODE, is_beside, refused, strangers
from kto_release.release.apart import look_apart
from kto_release.release.checks.item import Checked, failed, not_measured, passed
from kto_release.release.contents import Request, look
from kto_release.release.manifest import MANIFEST, SIGNATURE, Manifest, Newer, is_newer, read_any, version_of
from kto_release.release.signing import PUBLIC_KEY, Trust
from kto_release.release.signing import check as check_signature

__all__ = ["Checked", "check_release"]


def check_release(
    where: str,
    *,
    revision: str | None = None,
    rescore: bool = False,
    lc_data: Path | None = None,
    trust: Trust | None = None,
    apart: bool = True,
) -> list[Checked]:
    """Check a release in a folder or in a repository of the Hub.

    `trust` is what the reader knows the signer by. `apart`: look at what is in the files in a child process with limits
    of memory and time; not for what was made here. Raises `HubError` where the repository can't be read; everything
    that is wrong with the release itself is in the list.
    """
    is_here = Path(where).is_dir()
    folder = Path(where) if is_here else download(where, revision)
    if (linked := _linked(folder, folder / MANIFEST)) is not None:
        return [Checked(MANIFEST, *failed(linked))]
    try:
        manifest = read_any(folder / MANIFEST)
    except ReleaseError as error:
        return [Checked(MANIFEST, *failed(error.problem))]
    found = [Checked(MANIFEST, *passed(f"digest {manifest.digest[:12]}…, {len(manifest.files)} files listed"))]
    found += made_by(manifest)
    found += check_files(folder, manifest, downloaded=not is_here)
    found.append(signature(folder, trust, _beside(folder, manifest, downloaded=not is_here)))
    if any(item.state == "failed" for item in found):
        # What follows reads these files, and would only say again that they are not what they were.
        return found
    request = Request(folder.resolve(), rescore, lc_data.resolve() if lc_data else None, isinstance(manifest, Newer))
    found += look_apart(request) if apart else look(request, lambda _: None)
    return found


def made_by(manifest: Manifest | Newer) -> Iterator[Checked]:
    """What another version made may be told in other words than this one's; what it says is compared all the same."""
    maker, mine = manifest.made_by, f"kto-release {__version__}"
    if version_of(maker) is None:
        yield Checked("made by", *failed(f"{maker!r} is no version of kto-release"))
    elif isinstance(manifest, Newer):
        what = "files, signature, weights and chat template are checked, its records and its card are not"
        yield Checked("made by", *not_measured(f"{maker}, newer than this ({mine}): {what}"))
    elif is_newer(maker):
        yield Checked("made by", *not_measured(f"{maker}, newer than this ({mine}), which checks what it knows"))
    elif maker != mine:
        yield Checked("made by", *not_measured(f"{maker}, and this is {mine}"))


def download(repo_id: str, revision: str | None) -> Path:
    """The files of a repository, in the Hub's cache. Raises `HubError`."""
    from huggingface_hub import snapshot_download

    from kto_release.hub import READ_FAILURES, explain_read  # brings huggingface_hub

    try:
        return Path(snapshot_download(repo_id, revision=revision))
    except READ_FAILURES as error:
        problem = explain_read(error, "model", repo_id, revision).problem
        raise HubError(
            f"{repo_id!r} is no folder here, and can't be had from the Hub: {problem}",
            expected="a folder, or the id of a repository that you can read",
            todo="mend the name or --revision; for a private repository: hf auth login",
        ) from None


def check_files(folder: Path, manifest: Manifest | Newer, *, downloaded: bool = False) -> Iterator[Checked]:
    """Every listed file: one that a release may have, there, of its size, with its sha256; and what lies beside them.

    `downloaded`: the folder is a repository as the Hub has it.
    """
    right = 0
    for file in manifest.files:
        path = folder / file.path
        if (linked := _linked(folder, path)) is not None:
            yield Checked(file.path, *failed(linked))
        elif (why := _refused(file.path, manifest)) is not None:
            yield Checked(file.path, *failed(why))
        elif not path.is_file():
            yield Checked(file.path, *failed("missing"))
        elif path.stat().st_size != file.size:
            yield Checked(file.path, *failed(f"{path.stat().st_size} bytes, not {file.size}"))
        elif (digest := file_sha256(path)) != file.sha256:
            yield Checked(file.path, *failed(f"sha256 {digest[:12]}…, not {file.sha256[:12]}…"))
        else:
            right += 1
    names = [file.path for file in manifest.files]
    yield from (Checked(name, *failed("listed twice")) for name in {name for name in names if names.count(name) > 1})
    harmless = _beside(folder, manifest, downloaded=downloaded)
    for path in strangers(folder, set(names), downloaded=downloaded):
        name = path.relative_to(folder).as_posix()
        if name not in harmless:
            yield Checked(name, *failed("not part of the release"))
    if harmless:
        told = f"no part of the release, and not looked at: {', '.join(harmless)}"
        yield Checked("beside it", *not_measured(told))
    outcome = passed if right == len(names) else failed
    yield Checked("files", *outcome(f"{right} of {len(names)} whole"))


def _beside(folder: Path, manifest: Manifest | Newer, *, downloaded: bool) -> list[str]:
    """Files that people put beside the release, and that nobody would take for a part of it."""
    names = {file.path for file in manifest.files}
    found = strangers(folder, names, downloaded=downloaded)
    named = [(path, path.relative_to(folder).as_posix()) for path in found]
    return [name for path, name in named if is_beside(_real(folder, path), name)]


def _refused(name: str, manifest: Manifest | Newer) -> str | None:
    """Why no release has a file of this name; a newer version may have kinds of files that hold no code."""
    why = refused(name)
    return None if isinstance(manifest, Newer) and why != CODE and name.isascii() else why


def signature(folder: Path, trust: Trust | None, beside: Sequence[str] = ()) -> Checked:
    """The signature, against what the reader trusts; else only whether it is whole."""
    if (linked := _linked(folder, folder / SIGNATURE)) is not None:
        return Checked(SIGNATURE, *failed(linked))
    if not (folder / SIGNATURE).is_file():
        if trust is not None:
            return Checked(SIGNATURE, *failed("there is no signature"))
        return Checked(SIGNATURE, *not_measured("there is none: the files are whole, who made them is not shown"))
    own_key = folder / PUBLIC_KEY
    if trust is None and not own_key.is_file():
        return Checked(SIGNATURE, *not_measured("give --certificate-chain, or --identity and --issuer"))
    try:
        check_signature(folder, trust or Trust(key=own_key), [Path(name) for name in beside])
    except ReleaseError as error:
        return Checked(SIGNATURE, *failed(error.problem))
    if trust is None:
        whole = f"whole, by the key in the release itself ({PUBLIC_KEY})"
        return Checked(SIGNATURE, *passed(f"{whole}; that it is authentic only your own copy of it shows: --key"))
    return Checked(SIGNATURE, *passed("made by whom you trust: the release is authentic"))


def _linked(folder: Path, path: Path) -> str | None:
    """What is wrong with a path that goes through a link; None where it does not, or the Hub's own cache made it."""
    inside = [path, *(parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder)]
    if not any(one.is_symlink() for one in inside):
        return None
    real, root = path.resolve(), folder.resolve()
    if any(real.is_relative_to(place) for place in _hub_blobs(root)):
        return None
    return (
        "a link, which no release has" if real.is_relative_to(root) else "a link to another place, which is not opened"
    )


def _real(folder: Path, path: Path) -> Path:
    """A file of the Hub's cache behind its link; everything else as it is."""
    return path.resolve() if path.is_symlink() and _linked(folder, path) is None else path


def _hub_blobs(snapshot: Path) -> list[Path]:
    """Where the Hub's cache keeps the files of a snapshot, `CACHE/models--OWNER--NAME/snapshots/COMMIT`.

    They lie in the repository's blobs, or, where they came by Xet, in those that all repositories of a cache share.
    """
    if snapshot.parent.name != "snapshots":
        return []
    repository = snapshot.parents[1]
    return [repository / "blobs", repository.parent / "blobs"]
