"""Which files or splits the names in a recipe's data section mean, in files and folders as tools leave them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kto_release.digests import file_sha256, sha256_of
from kto_release.errors import DataError
from kto_release.feedback.files import EXPECTED_FILES, Numbered, is_data, is_typeless, rows_of, suffix_of
from kto_release.feedback.hub_data import Split, hub_rows
from kto_release.recipe import DataSection

DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""What tools put beside the data: never rows."""
COUNTS = ".import.json"
"""End of what `kto-release import` writes beside its rows."""
SHARD = re.compile(r"[-_]\d{5}-of-\d{5}$")
PATTERN = re.compile(r"[*?\[]")


class Source(NamedTuple):
    """One file, one split of a `save_to_disk` folder, or one split of a Hub data set."""

    name: str
    """File name, with as many folders before it as tell it from the others of its name; or split."""
    path: Path | None
    hub: Split | None = None
    split: str | None = None
    """The split that a file's or folder's name says it is part of; None where it says none."""

    @property
    def hub_id(self) -> str | None:
        """The Hub data set; None for a file."""
        return self.hub.hub_id if self.hub else None

    @property
    def revision(self) -> str | None:
        """The commit of the Hub data set."""
        return self.hub.revision if self.hub else None

    @property
    def typeless(self) -> bool:
        """Whether all its values are text (CSV)."""
        return self.path is not None and is_typeless(self.path.name)

    def rows(self) -> Numbered:
        """(number from 1, row). Raises `DataError`."""
        if self.hub is not None:
            return hub_rows(self.hub)
        path = self.path or Path()
        return _saved_rows(path) if path.is_dir() else rows_of(path)

    def digest(self) -> str:
        """sha256 of the file or folder, or the commit of the Hub data set."""
        if self.path is None:
            return f"revision {self.revision}"
        if self.path.is_dir():
            return sha256_of({p.name: file_sha256(p) for p in sorted(self.path.iterdir()) if p.is_file()})
        return file_sha256(self.path)


def _saved_rows(folder: Path) -> Numbered:
    import datasets

    try:
        rows = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder.name!r} can't be read as a save_to_disk folder: {error}") from None
    yield from enumerate(rows, 1)


def is_local(source: str) -> bool:
    """Whether a source is a file, folder or pattern of them; else it is a data set of the Hub."""
    path = Path(source).expanduser()
    if path.is_absolute() or path.exists() or is_data(source) or PATTERN.search(source):
        return True
    return source.startswith(("./", "../")) or source.endswith("/") or source.count("/") > 1


def files_of(data: DataSection) -> list[Source]:
    """All files that data.source names, each once. Raises `DataError` where one of the names has none."""
    found: dict[Path, Source] = {}
    for text in data.sources:
        for path, split in _expanded(text, data):
            found.setdefault(path, Source(path.name, path, None, split))
    names = _telling_names(list(found))
    return [source._replace(name=names[path]) for path, source in found.items()]


def _expanded(text: str, data: DataSection) -> Iterator[tuple[Path, str | None]]:
    path = Path(text).expanduser()
    if path.is_file():
        if not is_data(path.name):
            raise DataError(f"{path.name!r}: unknown kind of file", expected=EXPECTED_FILES)
        yield path, _split_of(path)
    elif path.is_dir():
        folder = path
        for inner in (data.config, data.data_dir):
            folder = folder / inner if inner and (folder / inner).is_dir() else folder
        yield from _of_folder(folder)
    else:
        matches = matching(path)
        if not matches:
            raise DataError(f"no such feedback: {text!r}", expected=f"a file or folder of {EXPECTED_FILES}")
        for match in matches:
            if match.is_dir():
                yield from _of_folder(match)
            elif is_data(match.name):
                yield match, _split_of(match)
            else:
                raise DataError(f"{match.name!r}: unknown kind of file", expected=EXPECTED_FILES)


def _of_folder(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The files in a folder and below it, in order; `save_to_disk` folders stand for themselves."""
    if (folder / "dataset_info.json").exists() and (folder / "state.json").exists():
        yield folder, folder.name
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in DESCRIPTIONS or path.name.endswith(COUNTS):
            continue
        if path.is_dir():
            yield from _of_folder(path)
        elif is_data(path.name):
            yield path, _split_of(path)


def matching(path: Path) -> list[Path]:
    """The files that match a pattern. What exists by its name is meant by it, brackets and all."""
    parts = path.parts
    start = Path(parts[0]) if parts else Path()
    if not path.is_absolute():
        start, parts = Path(), ("", *parts)
    place = 1
    while place < len(parts) and (start / parts[place]).exists():
        start, place = start / parts[place], place + 1
    if place == len(parts):
        return [start]
    return sorted(start.glob(os.path.join(*parts[place:]))) if start.is_dir() else []  # noqa: PTH118 - a pattern


def _split_of(path: Path) -> str | None:
    stem = path.name[: len(path.name) - len(suffix_of(path.name))]
    return SHARD.sub("", stem) if SHARD.search(stem) else None


def _telling_names(paths: list[Path]) -> dict[Path, str]:
    """For each path its last parts, as many as no other path ends with."""
    names = {}
    for path in paths:
        count = 1
        while count < len(path.parts) and any(
            other != path and other.parts[-count:] == path.parts[-count:] for other in paths
        ):
            count += 1
        names[path] = "/".join(path.parts[-count:])
    return names


def named(known: list[Source], name: str, data: DataSection) -> list[Source]:
    """The files that a partition's name means: by path, file name, stem, split, or as a pattern.

    Raises `DataError` with the names that there are.
    """
    chosen = [source for source in known if name in _names(source)]
    if chosen:
        return chosen
    places = [Path(name).expanduser(), *(Path(source).expanduser() / name for source in data.sources)]
    matches = [match for place in places for match in matching(place) if PATTERN.search(name) or match.exists()]
    found: dict[Path, Source] = {}
    for match in matches:
        inside = dict(_of_folder(match)) if match.is_dir() else {match: _split_of(match)}
        found |= {path: _known(known, path, split) for path, split in inside.items()}
    for path in found:
        if path.is_file() and not is_data(path.name):
            raise DataError(f"{path.name!r}: unknown kind of file", expected=EXPECTED_FILES)
    if not found:
        labels = dict.fromkeys(source.split or _stem(source) for source in known)
        raise DataError(
            f"no file for the partition {name!r}",
            expected=f"one of {', '.join(labels)}" if known else f"files in data.source: {EXPECTED_FILES}",
            todo="mend data.partitions, data.held_out or data.source",
        )
    return list(found.values())


def _known(known: list[Source], path: Path, split: str | None) -> Source:
    return next((source for source in known if source.path == path), Source(path.name, path, None, split))


def _stem(source: Source) -> str:
    return source.name[: len(source.name) - len(suffix_of(source.name))] or source.name


def _names(source: Source) -> set[str | None]:
    path = source.path or Path()
    stem = path.name[: len(path.name) - len(suffix_of(path.name))]
    return {str(path), path.name, source.name, stem, _stem(source), path.name.split(".")[0], source.split}
