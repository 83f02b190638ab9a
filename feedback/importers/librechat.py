"""LibreChat: mongoexport of the collection `messages`. Layout read in a fork's source: not verified."""

from collections.abc import Iterator, Mapping
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import text_of
from kto_release.feedback.importers.trees import path_to
from kto_release.feedback.rows import RowProblem

ROOT = "00000000-0000-0000-0000-000000000000"


def _libre_table(record: Record, _options: Options) -> tuple[str, object] | None:
    if not {"messageId", "conversationId"} <= record.keys():
        return None
    return f"message {record['conversationId']}", record["messageId"]


def _libre_text(record: Record) -> str:
    """`text`, or the text parts of `content`, which newer versions write instead."""
    parts = record.get("content") or []
    texts = []
    for part in parts:
        if part.get("type") != "text":
            raise LeftOut(
                reasons.HIDDEN if part.get("type") not in ("tool_call", "think") else f"a part {part['type']!r}"
            )
        texts.append(part["text"]["value"] if isinstance(part["text"], Mapping) else part["text"])
    return record.get("text") or "\n".join(texts)


def _plain(value: Any) -> Any:
    """A date or id as mongoexport writes it: {"$date": "…"}, {"$oid": "…"}."""
    if isinstance(value, Mapping) and len(value) == 1:
        return _plain(next(iter(value.values())))
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _said(feedback: Record) -> str | None:
    """The tag that was picked and the words that were typed; newer versions write the tag as an object."""
    tag = feedback.get("tag")
    tag = tag.get("key") if isinstance(tag, Mapping) else tag
    return ": ".join(text for text in (tag, feedback.get("text")) if isinstance(text, str) and text) or None


def _libre(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    said = record["feedback"].get("rating")
    if said not in ("thumbsUp", "thumbsDown"):
        raise RowProblem(f"rating is {said!r}, not thumbsUp or thumbsDown")
    if record.get("error"):
        raise LeftOut(reasons.FAILED)
    if record.get("unfinished") or record.get("finish_reason") in ("length", "content_filter"):
        raise LeftOut(reasons.UNFINISHED)
    nodes = {
        name: {**node, "parentMessageId": None} if node.get("parentMessageId") == ROOT else node
        for name, node in tables.all(f"message {record['conversationId']}").items()
    }
    path = path_to(nodes, record["messageId"], "parentMessageId")
    if any(node.get("files") or node.get("attachments") for node in path):
        raise LeftOut(reasons.HIDDEN)
    talk = [{"role": "user" if node["isCreatedByUser"] else "assistant", "content": _libre_text(node)} for node in path]
    yield Rating(
        talk[:-1], talk[-1], said == "thumbsUp",
        id=str(record["messageId"]), conversation=str(record["conversationId"]),
        user=text_of(_plain(record.get("user"))),
        model=record.get("model"), time=_plain(record.get("updatedAt") or record.get("createdAt")),
        subject=f"{record['conversationId']} {record['messageId']}",
        comment=_said(record["feedback"]),
    )  # fmt: skip


LIBRECHAT = Source(
    "librechat",
    "LibreChat",
    lambda r: "messageId" in r and isinstance(r.get("feedback"), Mapping),
    _libre,
    table=_libre_table,
)
