"""release.json: every other file of a release with its size and sha256, where the model comes from, and its results.

The digest in it covers the rest of the file, and the file has one spelling only, so that a change of any byte of it
shows. That nobody changed a file *and* the manifest only a signature can show.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from kto_release import __version__
from kto_release.digests import file_sha256, sha256_of
from kto_release.errors import ReleaseError
from kto_release.records import Environment, Facts, Interval, ModelFacts, WeightFacts

MANIFEST = "release.json"
SIGNATURE = "model.sig"
UNLISTED = frozenset({MANIFEST, SIGNATURE, ".gitattributes"})
"""A file can't hold its own hash, a signature covers the manifest, and .gitattributes is the Hub's."""


def within(path: str) -> str:
    """The path as it is, where it names a file within a release. Raises `ValueError`.

    Whoever made a release says these names, and whoever checks it opens them.
    """
    parts = PurePosixPath(path).parts
    plain = path == PurePosixPath(path).as_posix() and path.isprintable() and "\\" not in path and ":" not in path
    if not plain or not parts or path.startswith("/") or ".." in parts or path in (".", ""):
        raise ValueError(f"{path!r} names no file within a release")
    return path


PathWithin = Annotated[str, AfterValidator(within)]


class ReleaseFile(Facts):
    """One published file."""

    path: PathWithin
    """Relative, with forward slashes."""
    size: int
    """Bytes."""
    sha256: str


class Link(Facts):
    """One iteration in the chain from the base model to the published one."""

    iteration: int
    parent_sha256: str
    reference_sha256: str
    model_sha256: str
    partition: str
    source: list[str]
    """Hub id or file names."""
    revision: str | None
    data_sha256: str


class Result(Facts):
    """A score; everything about it is in the record that it names."""

    score: str
    model: str
    judge: str
    n_total: int
    win_rate: float | None
    length_controlled_winrate: float | None
    intervals: dict[str, Interval]
    reliable: bool
    record: PathWithin
    """Path of the whole record in the release."""
    judgements: PathWithin | None
    """Path of the judgements behind it."""


class Manifest(Facts):
    """The content of release.json."""

    format: Literal["kto-release/1"] = "kto-release/1"
    name: str
    repo_id: str | None
    finished: str
    """When the last of the records was finished: the manifest of a run does not change from one publish to the next."""
    made_by: str
    base: ModelFacts
    trained: ModelFacts
    """The fp32 model that the published weights were rounded from."""
    weights: WeightFacts
    chain: list[Link]
    recipe_sha256: str
    environment: Environment
    """Of the last iteration."""
    results: list[Result]
    files: list[ReleaseFile]
    digest: str
    """sha256 of the canonical JSON of all the rest: sorted keys, no spaces, UTF-8."""

    def sealed(self) -> "Manifest":
        """The same with its right digest."""
        return self.model_copy(update={"digest": self.expected_digest()})

    def expected_digest(self) -> str:
        """What `digest` must be."""
        return sha256_of(self.model_dump(mode="json", exclude={"digest"}))

    def spelled(self) -> str:
        """The one text that this manifest is written as."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


LARGEST = 20_000_000
"""Bytes of a manifest that is read; of thousands of files it has less than one."""


class Newer(BaseModel):
    """What this version reads of a manifest that a newer one made: the files, and that their list is whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    made_by: str
    files: list[ReleaseFile]
    digest: str


def version_of(made_by: str) -> Version | None:
    """The version of kto-release in `made_by`; None where it names none."""
    try:
        return Version(made_by.removeprefix("kto-release ")) if made_by.startswith("kto-release ") else None
    except InvalidVersion:
        return None


def is_newer(made_by: str) -> bool:
    """Whether a newer version than this one made a release."""
    version = version_of(made_by)
    return version is not None and version > Version(__version__)


def _newer(content: bytes) -> Newer | None:
    """The manifest of a newer version, whole; None where it is not such a one."""
    try:
        plain = json.loads(content)
        found = Newer.model_validate(plain)
    except (ValueError, RecursionError):
        return None
    stated = plain.pop("digest")
    spelled = json.dumps({**plain, "digest": stated}, indent=2, ensure_ascii=False) + "\n"
    whole = sha256_of(plain) == stated and spelled.encode() == content
    return found if is_newer(found.made_by) and whole else None


def list_files(folder: Path) -> list[ReleaseFile]:
    """Every file of a bundle but those that a manifest can't list, by path."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in UNLISTED:
            found.append(ReleaseFile(path=name, size=path.stat().st_size, sha256=file_sha256(path)))
    return found


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file that this version made. Raises `ReleaseError` as `read_any` does."""
    manifest = read_any(path)
    if isinstance(manifest, Newer):
        raise ReleaseError(f"{path.name} was made by {manifest.made_by}, a newer version than this")
    return manifest


def read_any(path: Path) -> Manifest | Newer:
    """The manifest in a file; of one that a newer version made in another form, what this one knows.

    Raises `ReleaseError` that names it where it is absent or was changed in any byte.
    """
    wrong = f"{path.name} was changed after it was made"
    todo = "don't trust this copy; download the release again"
    try:
        if path.exists() and not path.is_file():
            raise ReleaseError(f"{path.name} is no file", todo=todo)
        if path.exists() and path.stat().st_size > LARGEST:
            raise ReleaseError(f"{path.name} has more than {LARGEST:,} bytes, which no manifest has", todo=todo)
        content = path.read_bytes()
    except FileNotFoundError:
        raise ReleaseError(
            f"no {path.name} in {str(path.parent)!r}: it is no release of kto-release",
            expected="a folder or a repository that `kto-release publish` made",
        ) from None
    except OSError as error:
        raise ReleaseError(f"{str(path)!r} can't be read: {error.strerror or error}") from None
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        newer = _newer(content)
        if newer is not None:
            return newer
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ReleaseError(f"{wrong}, or comes from another version: {where}: {first['msg']}", todo=todo) from None
    if manifest.digest != manifest.expected_digest():
        raise ReleaseError(f"{wrong}: its content does not have the digest that it states", todo=todo)
    if manifest.spelled().encode() != content:
        raise ReleaseError(f"{wrong}: it is not spelled as kto-release spells it", todo=todo)
    return manifest
