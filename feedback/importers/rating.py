"""What an importer gives of one exported record: ratings of answers, or the reason why there is none."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from kto_release.feedback.columns import Cells, Rules
from kto_release.feedback.messages import turns
from kto_release.feedback.rows import Message, RowProblem

Record = Mapping[str, Any]
TEXT_PARTS = {"text", "input_text", "output_text", "thinking", "reasoning"}
CONTEXT = "looked up for other records: no rating of its own"
UNRATED = "no rating"
NEUTRAL = "neutral rating"
NO_TEXT = "no text"
LOST = "the conversation is not in the export"
UNFINISHED = "unfinished answer"
FAILED = "failed answer"
HIDDEN = "image, file or retrieved text that the export does not hold as text"
BRANCHES = "regenerated answers whose branches the export has lost"
TOOL_PART = "tool call or result among the parts of a message"
UNKNOWN = "unknown"
"""Who rated, where the export has lost it: taken for people, and warned of."""
BY_JUDGE = "rated by a model or a program"


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


def messages(value: Any, name: str = "messages") -> list[Message]:
    """Messages as training reads them. Raises `LeftOut` for what is no text, `RowProblem` for what is no message."""
    for turn in value if isinstance(value, list) else [value]:
        content = turn.get("content") if isinstance(turn, Mapping) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, Mapping) and part.get("type", "text") not in TEXT_PARTS:
                raise LeftOut(TOOL_PART if "tool" in str(part["type"]) else HIDDEN)
    return turns(Cells({}, Rules()), value, name)


def user(text: Any) -> list[Message]:
    """The conversation that is one question."""
    return [{"role": "user", "content": "" if text is None else text}]


def assistant(text: Any) -> Message:
    """An answer that is text."""
    if text is None:
        raise LeftOut(NO_TEXT)
    if not isinstance(text, str):
        raise RowProblem(f"the answer is {type(text).__name__}, not text")
    return {"role": "assistant", "content": text}


def choice(response: Any) -> tuple[Message, str | None]:
    """The answer in a response of OpenAI's API, and the model that gave it. Raises `LeftOut` where it is unfinished."""
    if not isinstance(response, Mapping) or not response.get("choices"):
        raise LeftOut(FAILED if isinstance(response, Mapping) and response.get("error") else NO_TEXT)
    if len(response["choices"]) > 1:
        raise RowProblem("the response has several choices, and the rating does not say which one it is of")
    found = response["choices"][0]
    if found.get("finish_reason") in ("length", "content_filter"):
        raise LeftOut(UNFINISHED)
    raw = {key: value for key, value in found["message"].items() if key not in ("annotations", "audio", "refusal")}
    if found["message"].get("refusal"):
        raw["content"] = raw.get("content") or found["message"]["refusal"]
    if found["message"].get("audio"):
        raise LeftOut(HIDDEN)
    return messages([raw])[0], response.get("model")


def corrected(rating: Rating, better: Message) -> Iterable[Rating]:
    """The two ratings that a correction makes: the better answer, and the one that it takes the place of."""
    if better == rating.answer:
        raise LeftOut("correction that changes nothing")
    subject = rating.subject or rating.id
    yield rating._replace(answer=better, value=True, kind="correction", model=None, subject=f"{subject} better")
    yield rating._replace(value=False, kind="correction", subject=f"{subject} corrected")


def text_of(value: Any) -> str | None:
    """An id as text; None stays None."""
    return None if value is None or value == "" else str(value)
