"""One import: every record of the files becomes rows or a counted reason, and the account adds up."""

import itertools
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from kto_release.errors import DataError, RecipeError
from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.deciding import Decider
from kto_release.feedback.importers.exports import records, unwrapped
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.redacting import redacted, redactor
from kto_release.feedback.importers.writing import Spool, Users, iso, row_of
from kto_release.feedback.rows import RowProblem
from kto_release.files import full_disk_told

SHOWN = 10
FOLLOW_UP = re.compile(
    r"\s*(and|but|so|ok|okay|no|yes|thanks|thank you|also|what about|how about|why not|again|continue|go on|then|that|"
    r"it|this|these|those|shorter|longer|more|und|aber|danke|nochmal|et|mais|merci|y|pero|gracias)\b",
    re.IGNORECASE,
)
BAD = "a record that can't be read"


class Account(BaseModel):
    """What became of the records: records + more_verdicts = rows + the sum of left_out."""

    source: str
    files: list[str]
    records: int
    more_verdicts: int
    """Verdicts beyond one per record: the other side of a pair or correction, several ratings of one record."""
    rows: int
    desirable: int
    undesirable: int
    left_out: dict[str, int]
    models: dict[str, int]
    """Rows by the model that gave the answer; "" where the export does not say."""
    by: dict[str, int]
    """Rows by who rated: human, judge, or unknown where the export has lost it."""
    follow_ups: int | None
    """Rows whose question refers to what was said before; null where the export holds that."""
    users: int
    salt_is_random: bool
    redacted: bool


class Bad(NamedTuple):
    """A record that can't be read."""

    where: str
    kind: str
    problem: str
    todo: str | None


class Import:
    """Reads one export. `skip_bad` counts what can't be read, which otherwise is an error."""

    def __init__(self, source: Source, options: Options, *, skip_bad: bool, redact: bool) -> None:
        self._source, self._options, self._skip_bad = source, options, skip_bad
        self._redact: Callable[[str], str] | None = redactor() if redact else None
        self._decider, self._users = Decider(options), Users()
        self._model = _pattern(options.model)
        try:
            self._since = iso(options.since)
        except RowProblem as problem:
            raise RecipeError(f"--since: {problem}", expected="a date like 2026-10-31") from None
        self._reasons: Counter[str] = Counter()
        self._bad: list[Bad] = []
        self._records = self._verdicts = 0

    def run(self, files: list[Path], out: Path, *, force: bool) -> Account:
        """Write the rows to `out`, whole or not at all. Raises `DataError` with every record that can't be read."""
        if out.exists() and not force:
            raise DataError(f"{str(out)!r} exists", todo="name another file, or add --force to replace it")
        if any(out.resolve() == path.resolve() for path in files):
            raise DataError(f"{str(out)!r} is one of the files to read", todo="name another file with --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        tables = self._tables(files)
        with full_disk_told(out.parent):
            spool = Spool(out.parent)
            try:
                self._collect(files, tables, spool)
                self._refuse()
                return self._write(files, spool, out)
            finally:
                spool.close()

    def _numbered(self, files: list[Path]) -> Iterator[tuple[str, Record]]:
        for path in files:
            for number, record in records(path):
                inside = unwrapped(record, self._source.wrapper)
                for position, row in enumerate(inside, number):
                    yield f"{path.name}, record {position}", row

    def _tables(self, files: list[Path]) -> Tables:
        tables = Tables()
        for where, record in self._numbered(files):
            refusal = self._source.refusal(record)
            if refusal is not None:
                raise DataError(f"{where}: this export can't be used", todo=refusal)
            try:
                place = self._source.table(record, self._options)
            except RowProblem:
                continue  # told in the second pass, where its number is
            if place is not None:
                tables.put(*place, record)
        return tables

    def _collect(self, files: list[Path], tables: Tables, spool: Spool) -> None:
        for where, record in self._numbered(files):
            self._records += 1
            # A record counts whole or not at all: its verdicts are drawn before the first one is written.
            verdicts: list[tuple[dict[str, Any] | None, str, str | None, Any]] = []
            try:
                verdicts += [self._verdict(found) for found in self._found(record, tables)]
            except LeftOut as left_out:
                verdicts.append((None, left_out.reason, left_out.subject, left_out.time))
            except RowProblem as problem:
                self._bad.append(Bad(where, problem.kind, str(problem), problem.todo))
                verdicts = [(None, f"{BAD}: {problem.kind}", None, None)]
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                shape = f"not a record of {self._source.title} as docs/import.md shows it ({_shape(error)})"
                self._bad.append(Bad(where, shape, shape, None))
                verdicts = [(None, f"{BAD}: {shape}", None, None)]
            for row, reason, subject, time in verdicts or [(None, reasons.UNRATED, None, None)]:
                self._verdicts += 1
                if row is None:
                    self._reasons[reason] += 1
                if row is not None or subject is not None:
                    spool.add(row, subject, time)

    def _found(self, record: Record, tables: Tables) -> Iterator[Rating | LeftOut]:
        if self._source.table(record, self._options) is not None and not self._source.is_rated(record):
            raise LeftOut(reasons.CONTEXT)
        if not self._source.is_rated(record) and self._options.score not in record:
            raise RowProblem(
                f"no record of {self._source.title}: it has {', '.join(sorted(map(str, record))) or 'nothing'}",
                f"no record of {self._source.title}",
                todo="kto-release import --guess FILES names the source",
            )
        yield from self._source.read(record, tables, self._options)

    def _verdict(self, found: Rating | LeftOut) -> tuple[dict[str, Any] | None, str, str | None, Any]:
        if isinstance(found, LeftOut):
            return None, found.reason, found.subject, found.time
        try:
            label = self._decider.label(found)
            self._check_asked_for(found)
            row = row_of(found, label, self._source.name, self._users)
        except LeftOut as left_out:
            return None, left_out.reason, left_out.subject, left_out.time
        return redacted(row, self._redact) if self._redact else row, "", found.subject, found.time

    def _check_asked_for(self, found: Rating) -> None:
        if self._model is not None and not self._model.search(found.model or ""):
            raise LeftOut("answer of another model")
        when = iso(found.time)
        if self._since is not None and (when is None or when < self._since):
            raise LeftOut(f"before {self._options.since}" if when else "no time, and --since asks for one")

    def _refuse(self) -> None:
        if not self._bad or self._skip_bad:
            return
        shown = [f"  - {bad.where}: {bad.problem}" for bad in self._bad[:SHOWN]]
        kinds = Counter(bad.kind for bad in self._bad)
        if len(self._bad) > SHOWN:
            shown += [f"  - … and {len(self._bad) - SHOWN} more; of all:"]
            shown += [f"    {count} × {kind}" for kind, count in kinds.most_common()]
        todos = list(dict.fromkeys(bad.todo for bad in self._bad if bad.todo))
        todos.append("or count such records and go on: --bad-rows skip")
        number = "1 record" if len(self._bad) == 1 else f"{len(self._bad)} of {self._records} records"
        raise DataError("\n".join([f"{number} can't be read; nothing was written", *shown]), todo="; ".join(todos))

    def _write(self, files: list[Path], spool: Spool, out: Path) -> Account:
        labels: Counter[bool] = Counter()
        models: Counter[str] = Counter()
        raters: Counter[str] = Counter()
        users: set[str] = set()
        follow_ups = 0
        handle, part = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                for line in spool.rows(self._reasons):
                    file.write(line)
                    follow_ups += _tally(line, labels, models, raters, users)
                file.flush()
                os.fsync(file.fileno())
            account = Account(
                source=self._source.name,
                files=[path.name for path in files],
                records=self._records,
                more_verdicts=self._verdicts - self._records,
                rows=labels.total(),
                desirable=labels[True],
                undesirable=labels[False],
                left_out=dict(self._reasons.most_common()),
                models=dict(models.most_common()),
                by=dict(raters),
                follow_ups=None if self._source.has_history else follow_ups,
                users=len(users),
                salt_is_random=self._users.is_random,
                redacted=self._redact is not None,
            )
            if account.rows == 0:
                raise DataError(
                    "no row is left; nothing was written\n"
                    + "\n".join(f"  - {count} × {reason}" for reason, count in account.left_out.items())
                )
            umask = os.umask(0)
            os.umask(umask)
            Path(part).chmod(0o666 & ~umask)
            Path(part).replace(out)
        finally:
            Path(part).unlink(missing_ok=True)
        return account


def guess(sources: tuple[Source, ...], path: Path) -> list[str]:
    """The names of the sources whose records or tables the first record of a file looks like."""
    first = list(itertools.islice(records(path), 1))
    if not first:
        raise DataError(f"{path.name!r} holds no record")
    fitting = []
    for source in sources:
        inside = unwrapped(first[0][1], source.wrapper)
        record = inside[0] if inside else first[0][1]
        try:
            is_table = source.table(record, Options()) is not None
        except RowProblem:
            is_table = False
        if source.refusal(record) is not None or source.is_rated(record) or is_table:
            fitting.append(source.name)
    # The last source is the general one: whatever else fits knows more of the export.
    return fitting[:-1] if len(fitting) > 1 and fitting[-1] == sources[-1].name else fitting


def _tally(line: str, labels: Counter[bool], models: Counter[str], raters: Counter[str], users: set[str]) -> bool:
    row = json.loads(line)
    labels[row["label"]] += 1
    models[row["origin"]["model"] or ""] += 1
    raters[row["origin"]["by"]] += 1
    if row["origin"]["user"]:
        users.add(row["origin"]["user"])
    return len(row["prompt"]) == 1 and FOLLOW_UP.match(row["prompt"][0]["content"]) is not None


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text is not None else None
    except re.error as error:
        raise RecipeError(f"--model {text!r} is no regular expression: {error}") from None


def _shape(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
