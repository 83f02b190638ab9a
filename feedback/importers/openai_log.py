"""The general case: a log of requests and responses of OpenAI's API, joined with ratings by an id."""

from collections.abc import Iterator, Mapping
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import choice, messages, text_of
from kto_release.feedback.rows import RowProblem

VALUES = ("rating", "label", "thumb", "feedback", "score", "value")
REQUEST_KEYS = {"messages", "tools"}


def _is_log(record: Record) -> bool:
    return isinstance(record.get("response"), Mapping) and isinstance(record.get("request"), Mapping)


def _value(record: Record, options: Options) -> tuple[str, Any] | None:
    names = [options.score] if options.score else [name for name in VALUES if name in record]
    names = [name for name in names if name in record]
    if len(names) > 1:
        raise RowProblem(f"which one is the rating: {', '.join(map(repr, names))}?", todo="name it: --score NAME")
    return (names[0], record[names[0]]) if names else None


def _key(record: Record, options: Options) -> Any:
    """What --join names: a key, or a dotted path; the id of the response where the log has none of its own."""
    found: Any = record
    for part in options.join.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if found is None and options.join == "id" and _is_log(record):
        return record["response"].get("id")
    return found


def _table(record: Record, options: Options) -> tuple[str, object] | None:
    if not _is_log(record) or _value(record, options) is not None:
        return None
    if _key(record, options) is None:
        raise RowProblem(f"a record of the log has no {options.join!r} to join it by", todo="name the id: --join KEY")
    return "log", _key(record, options)


def _read(record: Record, tables: Tables, options: Options) -> Iterator[Rating | LeftOut]:
    found = _value(record, options)
    if found is None:
        raise LeftOut(reasons.CONTEXT if _is_log(record) else reasons.UNRATED)
    key = _key(record, options)
    if key is None:
        raise RowProblem(f"a rating has no {options.join!r} to join it by", todo="name the id: --join KEY")
    log = record if _is_log(record) else tables.get("log", key)
    if log is None:
        raise LeftOut("rating of an answer that the log does not hold")
    if log.get("error") or log.get("status", 200) not in (200, None):
        raise LeftOut(reasons.FAILED)
    if not log["request"].get("messages"):
        raise LeftOut(reasons.LOST)
    answer, model = choice(log["response"])
    name, value = found
    who = text_of(record.get("user") or record.get("user_id") or log["request"].get("user"))
    yield Rating(
        messages(log["request"]["messages"]),
        answer,
        value,
        str(key),
        conversation=text_of(record.get("conversation_id") or log.get("conversation_id")),
        user=who,
        model=model or log["request"].get("model"),
        time=record.get("time")
        or record.get("timestamp")
        or record.get("created_at")
        or log["response"].get("created"),
        subject=f"{who} {key}",
        comment=record.get("comment"),
        tools=log["request"].get("tools"),
        by="judge" if str(record.get("by", record.get("source", ""))).lower() in ("judge", "llm", "eval") else "human",
        is_scale=name in ("score", "value"),
    )


OPENAI_LOG = Source(
    "openai-log",
    "a log of requests and responses with ratings",
    lambda record: _is_log(record) or (bool(set(VALUES) & set(record)) and "messages" not in record),
    _read,
    table=_table,
)
