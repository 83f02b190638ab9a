"""Read and check feedback: which sources make up each partition, and which of their prompts.

Rows are read one after the other, so 100,000 of them need no more memory than one.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kto_release.errors import DataError
from kto_release.feedback.columns import Rules
from kto_release.feedback.hub_data import Split, hub_facts
from kto_release.feedback.layouts import parse
from kto_release.feedback.left_out import LeftOut
from kto_release.feedback.rows import Feedback, RowProblem
from kto_release.feedback.sources import Source, files_of, is_local, named
from kto_release.recipe import DataSection

HELD_OUT = "held out"
"""What the held-out feedback is called in records and on the screen."""


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
    limits: tuple[int, ...] = ()
    """How many sources, one after the other, share one `max_rows`, counted before any prompt is left out; empty: all
    do, and only rows that belong here count."""
    lists_bad_rows: bool = True
    """False where another partition reads the same rows and tells of those that can't be used."""


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
    """"file, row 3" or, where data.columns names an id, "file, id 'a7'"."""
    source: str
    number: int
    """The row's number in its source, from 1."""
    feedback: list[Feedback]
    user: str | None = None
    """Who gave it, where the row says so."""
    plain: Mapping[str, Any] = {}
    """The row as it stands in its source."""


def prompt_digest(prompt: tuple[tuple[str, ...], ...]) -> bytes:
    """16 bytes that stand for a prompt: equal for equal messages."""
    return hashlib.sha256(json.dumps(prompt, ensure_ascii=False).encode("utf-8", "surrogatepass")).digest()[:16]


def find_partitions(data: DataSection) -> Partitions:
    """Which sources make which partition. Raises `DataError` where one does not exist.

    Where `partitions` is a number or `held_out` a share, all rows are read once to cut by prompts.
    """
    licenses: dict[str, str | None] = {}
    known: list[Source] | None = None
    if any(is_local(source) for source in data.sources):
        known = files_of(data)
    else:
        revision, licenses = hub_facts(data)

    def whole(name: str) -> Partition:
        if known is None:
            splits = [Split(hub_id, name, revision, data.config, data.data_dir) for hub_id in data.sources]
            sources = [Source(name, None, split) for split in splits]
        else:
            sources = named(known, name, data)
        return Partition(name, sources, None, frozenset(), licenses)

    held_out = whole(data.held_out) if isinstance(data.held_out, str) else None
    if isinstance(data.partitions, list):
        parts = [whole(name) for name in data.partitions]
        if isinstance(data.held_out, float):
            return _with_share(data, data.held_out, parts)
        return Partitions(parts, held_out)
    if known is None:
        return _cut(data, whole(data.split), held_out)
    return _cut(data, Partition("*", _of_split(known, data), None, frozenset(), licenses), held_out)


def _of_split(known: list[Source], data: DataSection) -> list[Source]:
    """The files to cut: all, but where their names say of which split they are, those of data.split."""
    splits = {source.split for source in known if source.split}
    chosen = [source for source in known if source.split in (None, data.split)] if len(splits) > 1 else known
    if not chosen:
        raise DataError(
            "no feedback in data.source" if not splits else f"no file of the split {data.split!r} in data.source",
            expected=f"one of {', '.join(sorted(splits))}"
            if splits
            else "files that can be read; docs/data.md lists them",
            todo="mend data.split or data.source" if splits else "mend data.source",
        )
    return chosen


def _with_share(data: DataSection, share: float, parts: list[Partition]) -> Partitions:
    order = _shuffled_prompts(parts, data)
    kept = frozenset(order[: max(1, round(share * len(order)))])
    held_out = Partition(
        "held-out",
        [source for part in parts for source in part.sources],
        kept,
        frozenset(),
        parts[0].licenses,
        tuple(len(part.sources) for part in parts),
        lists_bad_rows=False,
    )
    return Partitions([part._replace(without=kept, limits=(len(part.sources),)) for part in parts], held_out)


def _cut(data: DataSection, everything: Partition, held_out: Partition | None) -> Partitions:
    """Cut one set of rows by prompts into the asked number of partitions, of equal size but for one prompt."""
    if held_out is not None:
        chosen = {source.path for source in held_out.sources if source.path}
        everything = everything._replace(sources=[s for s in everything.sources if s.path not in chosen or not s.path])
    order = _shuffled_prompts([everything], data.model_copy(update={"max_rows": None}))
    if isinstance(data.held_out, float):
        count = max(1, round(data.held_out * len(order)))
        held_out = everything._replace(name="held-out", only=frozenset(order[:count]), lists_bad_rows=False)
        order = order[count:]
    number = data.iterations
    parts = [
        everything._replace(
            name=f"part-{i + 1}-of-{number}",
            only=frozenset(order[i * len(order) // number : (i + 1) * len(order) // number]),
            lists_bad_rows=i == 0,
        )
        for i in range(number)
    ]
    return Partitions(parts, held_out)


def _shuffled_prompts(parts: list[Partition], data: DataSection) -> list[bytes]:
    data = data.model_copy(update={"per_user": None})  # it caps each partition, so what there is to cut is not capped
    digests = {
        prompt_digest(feedback.prompt): None for part in parts for row in read(part, data) for feedback in row.feedback
    }
    order = list(digests)
    random.Random(f"partitions-{data.seed}").shuffle(order)
    return order


def read(partition: Partition, data: DataSection, left_out: LeftOut | None = None) -> Iterator[Row]:
    """The rows of a partition, in order. Rows whose feedback is all left out by `only` and `without` are passed over.

    `left_out` collects what is not used and why; its caller then refuses. Without it, raises `DataError` at the end,
    naming the rows that are wrong, unless data.bad_rows leaves them out.
    """
    users: Counter[str] = Counter()
    refuses = left_out is None and data.bad_rows == "error"
    left_out = LeftOut() if left_out is None else left_out
    rules = Rules.of(data)
    first = 0
    for count in partition.limits or (len(partition.sources),):
        room = data.max_rows
        for source, number, plain in _plain(partition.sources[first : first + count]):
            if room == 0:
                break
            row = _row(partition, source, number, plain, rules, left_out)
            belongs = row is not None and bool(row.feedback) and not _is_capped(row, data, users, left_out)
            if room is not None and (belongs or partition.limits or partition.only is None):
                room -= 1
            if row is not None and belongs:
                yield row
        first += count
    if refuses:
        left_out.refuse(partition.name)


def _is_capped(row: Row, data: DataSection, users: Counter[str], left_out: LeftOut) -> bool:
    """Whether the row's user has given `data.per_user` rows before; it is then counted as left out."""
    if data.per_user is None:
        return False
    if row.user is None:
        left_out.notes["feedback of a user who is not named, and whom data.per_user can't cap"] += 1
        return False
    users[row.user] += 1
    if users[row.user] > data.per_user:
        left_out.add(row.where, RowProblem("beyond data.per_user of one user", fault=False))
        return True
    return False


def _plain(sources: list[Source]) -> Iterator[tuple[Source, int, Mapping[str, Any]]]:
    for source in sources:
        for number, plain in source.rows():
            yield source, number, plain


def _row(
    partition: Partition, source: Source, number: int, plain: Mapping[str, Any], rules: Rules, left_out: LeftOut
) -> Row | None:
    """The row with the feedback that belongs to the partition; None where it can't be used."""
    where = f"{source.name}, row {number}"
    left_out.rows += 1
    try:
        parsed = parse(plain, rules, typeless=source.typeless)
    except RowProblem as problem:
        if partition.lists_bad_rows:
            left_out.add(f"{source.name}, {problem.identity}" if problem.identity else where, problem)
        return None
    if parsed.identity:
        where = f"{source.name}, {parsed.identity}"
    feedback = parsed.feedback
    if partition.only is not None or partition.without:
        feedback = [f for f in feedback if _belongs(partition, prompt_digest(f.prompt))]
    if feedback:
        left_out.unused.update(parsed.unused)
    return Row(where, source.name, number, feedback, parsed.user, plain)


def _belongs(partition: Partition, digest: bytes) -> bool:
    return digest not in partition.without and (partition.only is None or digest in partition.only)


def input_digests(partition: Partition) -> dict[str, str]:
    """What a partition is made of: sha256 of each file, or the commit of each Hub data set."""
    return {
        source.name if source.path else f"{source.hub_id}:{source.name}": source.digest()
        for source in partition.sources
    }
