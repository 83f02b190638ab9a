"""Read and check feedback: which files or splits make up a partition, and what is in them.

Sources are Hub data sets, or files: .jsonl, .json (a list) and .parquet, .jsonl also as .gz and .zst. Rows are read one
after the other, so 100,000 of them need no more memory than one.
"""

import glob
import gzip
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from kto_release.digests import file_sha256
from kto_release.errors import DataError
from kto_release.feedback.layouts import Feedback, RowProblem, parse
from kto_release.recipe import DataSection

SUFFIXES = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.zst")
SHOWN_PROBLEMS = 10
HELD_OUT = "held out"
"""What the held-out feedback is called in records and on the screen."""


class Source(NamedTuple):
    """One file, or one split of a Hub data set."""

    name: str
    """File name or split: no path of this machine."""
    path: Path | None
    hub_id: str | None
    revision: str | None


class Partition(NamedTuple):
    """Feedback that belongs together: the sources, and which of their prompts."""

    name: str
    sources: list[Source]
    only: frozenset[bytes] | None
    """Digests of the prompts to take; None takes all."""
    without: frozenset[bytes]
    """Digests of the prompts to leave out (they are held out)."""
    licenses: dict[str, str | None]
    """Licence of each Hub data set, as its card states it."""


class Partitions(NamedTuple):
    """Everything that a recipe's data section names."""

    iterations: list[Partition]
    held_out: Partition | None

    def named(self) -> dict[str, Partition]:
        """All of them by name: "iteration 1" and so on, and `HELD_OUT`."""
        found = {f"iteration {number}": partition for number, partition in enumerate(self.iterations, 1)}
        return found if self.held_out is None else found | {HELD_OUT: self.held_out}


class Row(NamedTuple):
    """The feedback of one row, with where it stands."""

    where: str
    feedback: list[Feedback]


def prompt_digest(prompt: tuple[tuple[str, str], ...]) -> bytes:
    """16 bytes that stand for a prompt: equal for equal messages."""
    return hashlib.sha256(json.dumps(prompt, ensure_ascii=False).encode("utf-8", "surrogatepass")).digest()[:16]


def find_partitions(data: DataSection) -> Partitions:
    """Which sources make which partition. Raises `DataError` where one does not exist.

    Where `partitions` is a number or `held_out` a share, all rows are read once to cut by prompts.
    """
    is_files = any(_looks_local(source) for source in data.sources)
    licenses: dict[str, str | None] = {}
    revision = data.revision
    if not is_files:
        revision, licenses = _hub_facts(data)

    def sources(name: str) -> list[Source]:
        return _files(data, name) if is_files else [Source(name, None, hub_id, revision) for hub_id in data.sources]

    def whole(name: str) -> Partition:
        return Partition(name, sources(name), None, frozenset(), licenses)

    held_out = whole(data.held_out) if isinstance(data.held_out, str) else None
    if isinstance(data.partitions, list):
        parts = [whole(name) for name in data.partitions]
        if isinstance(data.held_out, float):
            order = _shuffled_prompts(parts, data)
            kept = frozenset(order[: max(1, round(data.held_out * len(order)))])
            held_out = Partition("held-out", [s for p in parts for s in p.sources], kept, frozenset(), licenses)
            parts = [part._replace(without=kept) for part in parts]
        return Partitions(parts, held_out)
    return _cut(data, whole("*" if is_files else data.split), held_out)


def _cut(data: DataSection, everything: Partition, held_out: Partition | None) -> Partitions:
    """Cut one set of rows by prompts into the asked number of partitions, of equal size but for one prompt."""
    if held_out is not None:
        chosen = {source.path for source in held_out.sources if source.path}
        everything = everything._replace(sources=[s for s in everything.sources if s.path not in chosen or not s.path])
    order = _shuffled_prompts([everything], data)
    if isinstance(data.held_out, float):
        count = max(1, round(data.held_out * len(order)))
        held_out = everything._replace(name="held-out", only=frozenset(order[:count]))
        order = order[count:]
    number = data.iterations
    parts = [
        everything._replace(
            name=f"part-{i + 1}-of-{number}",
            only=frozenset(order[i * len(order) // number : (i + 1) * len(order) // number]),
        )
        for i in range(number)
    ]
    return Partitions(parts, held_out)


def _shuffled_prompts(parts: list[Partition], data: DataSection) -> list[bytes]:
    digests = {
        prompt_digest(feedback.prompt): None for part in parts for row in read(part, data) for feedback in row.feedback
    }
    order = list(digests)
    random.Random(f"partitions-{data.seed}").shuffle(order)
    return order


def read(partition: Partition, data: DataSection) -> Iterator[Row]:
    """The rows of a partition, in order. Raises `DataError` naming the rows that are wrong, at the end.

    Rows whose feedback is all left out by `only` and `without` are passed over.
    """
    problems: list[str] = []
    count = 0
    rows = 0
    for source in partition.sources:
        for number, plain in _plain_rows(source):
            if data.max_rows is not None and rows >= data.max_rows:
                break
            rows += 1
            where = f"{source.name}, row {number}"
            try:
                feedback = parse(plain, data.format, data.score_threshold)
            except RowProblem as problem:
                count += 1
                if len(problems) < SHOWN_PROBLEMS:
                    problems.append(f"{where}: {problem}")
                continue
            if partition.only is not None or partition.without:
                feedback = [f for f in feedback if _belongs(partition, prompt_digest(f.prompt))]
            if feedback and not count:
                yield Row(where, feedback)
    if count:
        more = f"\n  … and {count - len(problems)} more" if count > len(problems) else ""
        raise DataError(
            f"{count} of {rows} rows of partition {partition.name!r} can't be used:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + more,
            todo="mend or remove these rows; docs/data.md shows the layouts",
        )


def _belongs(partition: Partition, digest: bytes) -> bool:
    return digest not in partition.without and (partition.only is None or digest in partition.only)


def input_digests(partition: Partition) -> dict[str, str]:
    """What a partition is made of: sha256 of each file, or the commit of each Hub data set."""
    return {
        source.name if source.path else f"{source.hub_id}:{source.name}": (
            file_sha256(source.path) if source.path else f"revision {source.revision}"
        )
        for source in partition.sources
    }


def _looks_local(source: str) -> bool:
    path = Path(source)
    return path.is_absolute() or path.exists() or source.endswith(SUFFIXES) or any(c in source for c in "*?[")


def _files(data: DataSection, name: str) -> list[Source]:
    """The files that a partition's name means: by path, by file name, or by file name without endings."""
    known: list[Path] = []
    for source in data.sources:
        path = Path(source)
        if path.is_dir():
            known += sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith("."))
        else:
            found = [Path(p) for p in sorted(glob.glob(source))]  # noqa: PTH207 - an absolute pattern
            if not found:
                raise DataError(f"no such feedback: {source!r}", expected=f"files ending in {', '.join(SUFFIXES)}")
            known += found
    if name == "*":
        chosen = known
    else:
        chosen = [p for p in known if name in (str(p), p.name, p.name.split(".")[0])]
        chosen = chosen or [Path(p) for p in sorted(glob.glob(name))]  # noqa: PTH207
    if not chosen:
        raise DataError(
            f"no file for the partition {name!r}",
            expected=f"one of {', '.join(p.name.split('.')[0] for p in known)}" if known else "files in data.source",
            todo="mend data.partitions, data.held_out or data.source",
        )
    for path in chosen:
        if not path.name.endswith(SUFFIXES):
            raise DataError(f"{path.name!r}: unknown kind of file", expected=f"one of {', '.join(SUFFIXES)}")
    return [Source(path.name, path, None, None) for path in chosen]


def _hub_facts(data: DataSection) -> tuple[str | None, dict[str, str | None]]:
    """The commit and the licence of the Hub data sets; unknown (None) where only the cache is at hand."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    revision = data.revision
    licenses: dict[str, str | None] = {}
    for hub_id in data.sources:
        try:
            info = HfApi().dataset_info(hub_id, revision=data.revision, timeout=20)
        except (RepositoryNotFoundError, HFValidationError):
            raise DataError(
                f"no such data set: {hub_id!r} is no file here, and the Hub knows none of that name, or hides it",
                todo="mend data.source, or `hf auth login` for a private one",
            ) from None
        except RevisionNotFoundError:
            raise DataError(f"{hub_id!r} has no revision {data.revision!r}", todo="mend data.revision") from None
        except (HfHubHTTPError, OSError, _connection_error()):
            licenses[hub_id] = None  # offline: the cache may still hold the rows
            continue
        revision = info.sha if len(data.sources) == 1 else data.revision
        card = info.card_data.to_dict() if info.card_data else {}
        licenses[hub_id] = card.get("license") if isinstance(card.get("license"), str) else None
    return revision, licenses


def _connection_error() -> type[Exception]:
    import httpx2  # what huggingface_hub 2 speaks through; its errors are no OSError

    return httpx2.HTTPError


def _plain_rows(source: Source) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number from 1, row) of one source."""
    if source.path is None:
        yield from _hub_rows(source)
    elif source.path.name.endswith(".parquet"):
        yield from _parquet_rows(source.path)
    elif source.path.name.endswith(".json"):
        yield from _json_rows(source.path)
    else:
        yield from _jsonl_rows(source.path)


def _hub_rows(source: Source) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import datasets

    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(source.hub_id, split=source.name, revision=source.revision)
    except ValueError as error:
        raise DataError(
            f"{source.hub_id!r}: {str(error).splitlines()[0]}", todo="mend data.partitions or data.held_out"
        ) from None
    except (OSError, _connection_error()) as error:
        raise DataError(
            f"the data set {source.hub_id!r} can't be fetched: {str(error).splitlines()[0]}",
            todo="connect to the Hub, or give data.source local files",
        ) from None
    yield from enumerate(rows, 1)


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pa.ArrowException as error:
        raise DataError(f"{path.name!r} is no Parquet file: {str(error).splitlines()[0]}") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path.name!r} can't be read: {error}", expected="a JSON list of rows") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"{path.name!r} holds no list of rows", expected="a JSON list of objects, or JSON lines (.jsonl)"
        )
    yield from enumerate(rows, 1)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{path.name}, row {number}: {line[:60]!r} is no JSON object")
                yield number, row
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path.name}, row {max(number, 1)}: not valid JSON: {error}", todo="mend this line") from None


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    if path.suffix == ".zst":
        import zstandard

        return io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(path.open("rb")), encoding="utf-8")
    return path.open(encoding="utf-8")
