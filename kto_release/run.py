"""The run directory: its paths, its lock, and the records that the stages left in it."""

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import BaseModel, ValidationError

from kto_release.errors import RunError
from kto_release.files import full_disk_told, read_record, write_atomically, write_record
from kto_release.recipe import Recipe
from kto_release.records import EvalRecord, IterationRecord

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What flock says on file systems without locks: Lustre without -o flock, NFS without lockd."""
HELD = ".held"


class Moment(BaseModel):
    """`moment.json`."""

    moment: str


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
            # Until a first iteration is planned, a command that failed must not hold its mended recipe off.
            if any(run.path.glob("iteration-*/plan.json")):
                run._check_identity()
        elif run.path.is_dir() and any(not p.name.startswith(".") and p.name != HELD for p in run.path.iterdir()):
            # What begins with a dot is ours: the lock, or a recipe that another rank is just now writing.
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
            plain = yaml.safe_load(self.saved_recipe.read_text(encoding="utf-8"))
            # Only what makes the weights: eval and release may hold keys that this version no longer knows.
            saved = Recipe.model_validate({key: plain[key] for key in ("name", "model", "data", "train")})
        except (ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError) as error:
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

    def moment(self, *, keep: bool = True) -> str:
        """When this run began, as a template that prints the date is told: ISO 8601 of UTC, without a time zone.

        The first call records it (with `keep`) in moment.json; all later ones, of whichever stage, give the same.
        """
        path = self.path / "moment.json"
        found = read_record(path, Moment)
        if found is None:
            found = Moment(moment=datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds"))
            if keep:
                write_record(path, found)
        return found.moment

    @contextmanager
    def lock(self, *, hold: bool = True) -> Iterator[None]:
        """Hold the run alone; a second process is refused. The system releases it when the process ends, however.

        With `hold` false nothing is done: of the ranks of one training only the main process holds the lock.
        """
        if not hold:
            with full_disk_told(self.path):
                yield
            return
        with full_disk_told(self.path), self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise self._in_use(file.read().strip() or "unknown") from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                with self._held_by_a_file():
                    yield
                return
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def _in_use(self, holder: str, todo: str = "") -> RunError:
        return RunError(
            f"the run {str(self.path)!r} is in use by another process ({holder})",
            todo=f"wait until it is done, or stop it; the same command then continues{todo}",
        )

    @contextmanager
    def _held_by_a_file(self) -> Iterator[None]:
        """Where a file system has no locks: a file that says who works here, which a killed process leaves behind."""
        path, mine = self.path / HELD, f"process {os.getpid()} on {platform.node()}"
        with suppress(FileNotFoundError):
            if _has_ended(path.read_text(encoding="utf-8")):
                path.unlink()
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(mine)
        except FileExistsError:
            holder = path.read_text(encoding="utf-8") or "unknown"
            raise self._in_use(holder, f". If it was killed, remove {str(path)!r}") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

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


def _has_ended(holder: str) -> bool:
    """Whether the process of a `HELD` file was of this machine and is gone."""
    words = holder.split()
    if len(words) != 4 or words[3] != platform.node() or not words[1].isdigit():
        return False
    try:
        os.kill(int(words[1]), 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False
