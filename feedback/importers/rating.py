"""What an importer gives of one exported record: ratings of answers, or the reason why there is none."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kto_release.feedback.rows import Message, RowProblem

Record = Mapping[str, Any]
UNKNOWN = "unknown"
"""Who rated, where the export has lost it: taken for people, and warned of."""


class LeftOut(Exception):  # noqa: N818 - it is a reason, not an error
    """This record, or this rating of it, gives no row; the reason is counted.

    `subject` and `time` say which answer's verdict is withdrawn, where one is.
    """

    def __init__(self, reason: str, *, subject: str | None = None, time: Any = None) -> None:
        super().__init__(reason)
        self.reason, self.subject, self.time = reason, subject, time


class Rating(NamedTuple):
    """One answer, what it answers, and what was said of it."""

    prompt: list[Message]
    answer: Message
    value: Any
    """The verdict as exported; a bool where the source's own words are clear."""
    id: str
    conversation: str | None = None
    user: str | None = None
    model: str | None = None
    time: Any = None
    kind: str = "thumb"
    """thumb, star, score, correction, arena or label."""
    by: str = "human"
    name: str = ""
    """The score, metric or question that the value is of, where a record can have several."""
    subject: str | None = None
    """What is rated by whom: of two ratings with one subject the later one counts."""
    tools: list[Any] | None = None
    comment: str | None = None
    """What the user said of the answer."""
    is_scale: bool = False
    """The value may be of any scale: a number means nothing until a rule says what."""


class Options(NamedTuple):
    """What the user says beyond the files."""

    score: str | None = None
    desirable: str | None = None
    undesirable: str | None = None
    model: str | None = None
    since: str | None = None
    by: str = "human"
    columns: Mapping[str, str] = {}
    join: str = "id"


class Tables:
    """Records of an export that carry no rating and that ratings point at, by kind and id."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, Record]] = {}
        self._doubled: set[tuple[str, str]] = set()
        self._groups: dict[tuple[str, str], dict[str, list[Record]]] = {}

    def put(self, kind: str, key: object, record: Record) -> None:
        """Keep a record under its id."""
        known = self._kinds.setdefault(kind, {})
        if known.setdefault(str(key), record) != record:
            self._doubled.add((kind, str(key)))

    def get(self, kind: str, key: object) -> Record | None:
        """The record with this id, if the export has it. Raises `RowProblem` where it has two that differ."""
        if (kind, str(key)) in self._doubled:
            raise RowProblem(f"two different records have the id {str(key)!r}", "two different records have one id")
        return self._kinds.get(kind, {}).get(str(key))

    def all(self, kind: str) -> Mapping[str, Record]:
        """The records of a kind, by id, in the order of the export."""
        return self._kinds.get(kind, {})

    def group(self, kind: str, column: str, value: object) -> list[Record]:
        """The records of a kind that have this value, in the order of the export."""
        if (kind, column) not in self._groups:
            groups: dict[str, list[Record]] = {}
            for record in self.all(kind).values():
                groups.setdefault(str(record.get(column)), []).append(record)
            self._groups[kind, column] = groups
        return self._groups[kind, column].get(str(value), [])


Read = Callable[[Record, Tables, Options], Iterable[Rating | LeftOut]]


class Source(NamedTuple):
    """One tool whose exports can be read."""

    name: str
    title: str
    is_rated: Callable[[Record], bool]
    """Whether a record may carry ratings."""
    read: Read
    table: Callable[[Record, Options], tuple[str, object] | None] = lambda _record, _options: None
    """(kind, id) of a record that ratings point at."""
    refusal: Callable[[Record], str | None] = lambda _record: None
    """Why this export can't be used at all, and how to get one that can."""
    has_history: bool = True
    """False where the export holds single questions, whatever was said before them."""
    wrapper: str | None = None
    """The key of the list, where the records stand in one object."""
