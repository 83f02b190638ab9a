"""What a stranger runs against a published release: `kto-release verify REPO_OR_DIR`.

It needs no GPU, no recipe and no trust in us: the manifest, every file's sha256, a signature if there is one, the
token ids that the template must give, and the card's numbers against the records beside it.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from kto_release import __version__
from kto_release.digests import file_sha256
from kto_release.errors import HubError, ModelError, ReleaseError, ScoreError
from kto_release.records import EvalRecord, IterationRecord
from kto_release.release.card import FACTS, README, render_card
from kto_release.release.chat_template import replay
from kto_release.release.checks.item import State
from kto_release.release.checks.model import SAFE_SUFFIXES
from kto_release.release.facts import CardFacts
from kto_release.release.manifest import MANIFEST, SIGNATURE, UNLISTED, Manifest, read_manifest
from kto_release.release.model_index import EVAL_RESULTS, eval_results
from kto_release.release.rescore import SAME, read_jsonl, rescore
from kto_release.release.signing import PUBLIC_KEY, Trust
from kto_release.release.signing import check as check_signature

OF_A_CLONE = frozenset({(".git",)})
OF_A_DOWNLOAD = frozenset({(".cache", "huggingface")})
"""Folders that a clone or a download puts beside the files."""


class Checked(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: State
    evidence: str


def check_release(
    where: str,
    *,
    revision: str | None = None,
    rescore: bool = False,
    lc_data: Path | None = None,
    trust: Trust | None = None,
) -> list[Checked]:
    """Check a release in a folder or in a repository of the Hub.

    `trust` is what the reader knows the signer by. Raises `HubError` where the repository can't be read; everything
    that is wrong with the release itself is in the list.
    """
    folder = Path(where) if Path(where).is_dir() else download(where, revision)
    try:
        manifest = read_manifest(folder / MANIFEST)
    except ReleaseError as error:
        return [Checked(MANIFEST, "failed", error.problem)]
    found = [Checked(MANIFEST, "passed", f"digest {manifest.digest[:12]}…, {len(manifest.files)} files listed")]
    found += check_files(folder, manifest)
    found.append(signature(folder, trust))
    if any(item.state == "failed" for item in found):
        # What follows reads these files, and would only say again that they are not what they were.
        return found
    found.append(template(folder))
    found.append(card(folder, manifest))
    if rescore:
        found += rescored(folder, manifest, lc_data)
    return found


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


def check_files(folder: Path, manifest: Manifest) -> Iterator[Checked]:
    """Every listed file: there, of its size, with its sha256; and no other file beside them."""
    right = 0
    for file in manifest.files:
        path = folder / file.path
        if path.suffix not in SAFE_SUFFIXES:
            yield Checked(file.path, "failed", "a kind of file that can hold code, which no release has")
        elif _leads_out(folder, path):
            yield Checked(file.path, "failed", "a link to another place, which is not opened")
        elif not path.is_file():
            yield Checked(file.path, "failed", "missing")
        elif path.stat().st_size != file.size:
            yield Checked(file.path, "failed", f"{path.stat().st_size} bytes, not {file.size}")
        elif (digest := file_sha256(path)) != file.sha256:
            yield Checked(file.path, "failed", f"sha256 {digest[:12]}…, not {file.sha256[:12]}…")
        else:
            right += 1
    listed = {file.path for file in manifest.files} | UNLISTED
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() and not path.is_symlink():
            continue
        if name.parts[:1] not in OF_A_CLONE and name.parts[:2] not in OF_A_DOWNLOAD and name.as_posix() not in listed:
            yield Checked(name.as_posix(), "failed", "not part of the release")
    yield Checked(
        "files", "passed" if right == len(manifest.files) else "failed", f"{right} of {len(manifest.files)} whole"
    )


def signature(folder: Path, trust: Trust | None) -> Checked:
    """The signature, against what the reader trusts; else only whether it is whole."""
    if not (folder / SIGNATURE).is_file():
        if trust is not None:
            return Checked(SIGNATURE, "failed", "there is no signature")
        return Checked(SIGNATURE, "not measured", "there is none: the files are whole, who made them is not shown")
    own_key = folder / PUBLIC_KEY
    if trust is None and not own_key.is_file():
        return Checked(SIGNATURE, "not measured", "give --certificate-chain, or --identity and --issuer")
    try:
        check_signature(folder, trust or Trust(key=own_key))
    except ReleaseError as error:
        return Checked(SIGNATURE, "failed", error.problem)
    if trust is None:
        whole = f"whole, by the key in the release itself ({PUBLIC_KEY})"
        return Checked(SIGNATURE, "passed", f"{whole}; that it is authentic only your own copy of it shows: --key")
    return Checked(SIGNATURE, "passed", "made by whom you trust: the release is authentic")


def _leads_out(folder: Path, path: Path) -> bool:
    """Whether a path goes through a link to another place than the Hub's own cache of these very files."""
    real, root = path.resolve(), folder.resolve()
    return not any(real.is_relative_to(place) for place in (root, *_hub_blobs(root)))


def _hub_blobs(snapshot: Path) -> list[Path]:
    """Where the Hub's cache keeps the files of a snapshot, `CACHE/models--OWNER--NAME/snapshots/COMMIT`.

    They lie in the repository's blobs, or, where they came by Xet, in those that all repositories of a cache share.
    """
    if snapshot.parent.name != "snapshots":
        return []
    repository = snapshot.parents[1]
    return [repository / "blobs", repository.parent / "blobs"]


def template(folder: Path) -> Checked:
    """The token ids of the conversations in template_test.json, made again."""
    try:
        count = replay(folder)
    except (ModelError, ReleaseError) as error:
        return Checked("chat template", "failed", str(error))
    return Checked("chat template", "passed", f"{count} conversations give the recorded ids")


def card(folder: Path, manifest: Manifest) -> Checked:
    """README.md, and .eval_results/ where it is there, made again from the records in the release."""
    mine = f"kto-release {__version__}"
    if manifest.made_by != mine:
        return Checked(README, "not measured", f"made by {manifest.made_by}, and this is {mine}")
    try:
        iterations, evaluations = read_records(folder, manifest)
        rest = json.loads((folder / FACTS).read_bytes())
        facts = CardFacts.model_validate(
            {**rest, "iterations": iterations, "evaluations": evaluations, "weights": manifest.weights}
        )
    except (OSError, ValueError, TypeError, ValidationError) as error:
        return Checked(README, "failed", f"the records in the release can't be read: {str(error).splitlines()[0]}")
    made = {README: render_card(facts)}
    if (folder / EVAL_RESULTS).is_file():
        made[EVAL_RESULTS] = eval_results(facts) or ""
    for name, text in made.items():
        stated = (folder / name).read_bytes().decode("utf-8", errors="replace")
        if stated != text:
            lines = difflib.ndiff(text.splitlines(keepends=True), stated.splitlines(keepends=True))
            first = next(line for line in lines if line[0] in "+-").rstrip()
            return Checked(name, "failed", f"says what the records do not: {first}")
    return Checked(README, "passed", f"every number is that of the {len(iterations) + len(evaluations)} records")


def read_records(folder: Path, manifest: Manifest) -> tuple[list[IterationRecord], list[EvalRecord]]:
    """The records in a release. Raises `OSError` or pydantic's `ValidationError`."""
    iterations = [
        IterationRecord.model_validate_json((folder / "records" / f"iteration-{link.iteration}.json").read_bytes())
        for link in manifest.chain
    ]
    results = [EvalRecord.model_validate_json((folder / result.record).read_bytes()) for result in manifest.results]
    return iterations, results


def rescored(folder: Path, manifest: Manifest, lc_data: Path | None) -> Iterator[Checked]:
    """Win rates and length-controlled win rates, computed again from the released judgements."""
    _, records = read_records(folder, manifest)
    for result, record in zip(manifest.results, records, strict=True):
        what = f"scores of {result.model}"
        if result.judgements is None:
            yield Checked(what, "not measured", "the judgements are not in this release")
            continue
        try:
            again = rescore(read_jsonl(folder / result.judgements), record, lc_data)
        except (ReleaseError, ScoreError) as error:
            yield Checked(what, "failed", error.problem)
            continue
        pairs = {
            "win rate": (again.win_rate, record.win_rate),
            "length-controlled": (again.length_controlled_winrate, record.length_controlled_winrate),
        }
        shown = [f"{name} {made:.2f}" for name, (made, _) in pairs.items() if made is not None]
        wrong = [
            f"{name} {made:.4f}, not {stated}"
            for name, (made, stated) in pairs.items()
            if made is not None and (stated is None or abs(made - stated) > SAME)
        ]
        if again.no_length_control:
            shown.append(f"length-controlled not checked: {again.no_length_control}")
        evidence = f"{', '.join(wrong or shown)} from {record.n_total} judgements by {record.judge.name}"
        yield Checked(what, "failed" if wrong else "passed", evidence)
