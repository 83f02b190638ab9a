"""Chat interfaces whose messages carry ratings: LibreChat, Hugging Face's chat-ui, Chainlit, ChatGPT's own export."""

from collections.abc import Iterator, Mapping
from typing import Any

from kto_release.feedback.importers.rating import (
    BRANCHES,
    FAILED,
    HIDDEN,
    LOST,
    UNFINISHED,
    UNRATED,
    LeftOut,
    Options,
    Rating,
    Record,
    Source,
    Tables,
    messages,
    text_of,
)
from kto_release.feedback.importers.trees import path_to
from kto_release.feedback.rows import Message, RowProblem

ROOT = "00000000-0000-0000-0000-000000000000"
SPOKEN = {"user_message": "user", "assistant_message": "assistant", "system_message": "system"}


# LibreChat: mongoexport of the collection `messages`. Layout read in a fork's source: not verified.


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
            raise LeftOut(HIDDEN if part.get("type") not in ("tool_call", "think") else f"a part {part['type']!r}")
        texts.append(part["text"]["value"] if isinstance(part["text"], Mapping) else part["text"])
    return record.get("text") or "\n".join(texts)


def _plain(value: Any) -> Any:
    """A date or id as mongoexport writes it: {"$date": "…"}, {"$oid": "…"}."""
    if isinstance(value, Mapping) and len(value) == 1:
        return _plain(next(iter(value.values())))
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _libre(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    said = record["feedback"].get("rating")
    if said not in ("thumbsUp", "thumbsDown"):
        raise RowProblem(f"rating is {said!r}, not thumbsUp or thumbsDown")
    if record.get("error"):
        raise LeftOut(FAILED)
    if record.get("unfinished") or record.get("finish_reason") in ("length", "content_filter"):
        raise LeftOut(UNFINISHED)
    nodes = {
        name: {**node, "parentMessageId": None} if node.get("parentMessageId") == ROOT else node
        for name, node in tables.all(f"message {record['conversationId']}").items()
    }
    path = path_to(nodes, record["messageId"], "parentMessageId")
    if any(node.get("files") or node.get("attachments") for node in path):
        raise LeftOut(HIDDEN)
    talk = [{"role": "user" if node["isCreatedByUser"] else "assistant", "content": _libre_text(node)} for node in path]
    yield Rating(
        talk[:-1], talk[-1], said == "thumbsUp",
        id=str(record["messageId"]), conversation=str(record["conversationId"]),
        user=text_of(_plain(record.get("user"))),
        model=record.get("model"), time=_plain(record.get("updatedAt") or record.get("createdAt")),
        subject=f"{record['conversationId']} {record['messageId']}",
    )  # fmt: skip


LIBRECHAT = Source(
    "librechat",
    "LibreChat",
    lambda r: "messageId" in r and isinstance(r.get("feedback"), Mapping),
    _libre,
    table=_libre_table,
)


# chat-ui: the Parquet file that its export writes.


def _chat_ui(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    talk: list[Message] = []
    found: list[Rating | LeftOut] = []
    has_lost = False
    for position, node in enumerate(record["messages"]):
        score = node.get("score")
        if score not in (None, 0, 1, -1):
            raise RowProblem(f"score is {score!r}, not 1 or -1")
        if node.get("files"):
            raise LeftOut(HIDDEN)
        message = messages([{"role": node["from"], "content": node["content"]}])[0]
        # Two answers in a row are one question's, answered anew: the flat list no longer says which one went on.
        has_lost = has_lost or bool(talk and message["role"] == talk[-1]["role"] == "assistant")
        if score:
            rated = Rating(
                list(talk), message, score == 1,
                id=f"{record.get('title', '')} {position}", conversation=text_of(record.get("title")),
                model=record.get("model"), time=node.get("updatedAt") or record.get("updated_at"),
            )  # fmt: skip
            found.append(LeftOut(BRANCHES) if has_lost else rated)
        talk.append(message)
    if not found:
        raise LeftOut(UNRATED)
    yield from found


CHAT_UI = Source(
    "chat-ui",
    "Hugging Face's chat-ui",
    lambda r: (
        isinstance(r.get("messages"), list) and any(isinstance(m, Mapping) and "from" in m for m in r["messages"])
    ),
    _chat_ui,
)


# Chainlit: its tables steps and feedbacks.


def _chainlit_table(record: Record, _options: Options) -> tuple[str, object] | None:
    return ("step", record["id"]) if {"threadId", "type", "output"} <= record.keys() else None


def _chainlit(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    value = record["value"]
    if str(value) not in ("0", "1", "0.0", "1.0"):
        raise RowProblem(f"value is {value!r}, not 0 or 1")
    rated = tables.get("step", record["forId"])
    if rated is None:
        raise LeftOut(LOST)
    if rated.get("type") != "assistant_message":
        raise LeftOut(f"rating of a step of type {rated.get('type')!r}, not of an answer")
    if rated.get("isError") in (True, "true", 1):
        raise LeftOut(FAILED)
    steps = [step for step in tables.group("step", "threadId", rated["threadId"]) if step["type"] in SPOKEN]
    steps.sort(key=lambda step: str(step["createdAt"]))
    before = steps[: next(i for i, step in enumerate(steps) if step["id"] == rated["id"])]
    talk = [{"role": SPOKEN[step["type"]], "content": step["output"] or step.get("input")} for step in before]
    yield Rating(
        messages(talk), {"role": "assistant", "content": rated["output"]}, float(value) == 1,
        id=str(record.get("id", record["forId"])), conversation=str(rated["threadId"]), time=rated["createdAt"],
        subject=str(record["forId"]),
    )  # fmt: skip


CHAINLIT = Source("chainlit", "Chainlit", lambda r: {"forId", "value"} <= r.keys(), _chainlit, table=_chainlit_table)


# ChatGPT: message_feedback.json and conversations.json of a data export. Reverse-engineered: there is no contract.


def _chatgpt_table(record: Record, _options: Options) -> tuple[str, object] | None:
    return ("talk", record.get("conversation_id") or record.get("id")) if "mapping" in record else None


def _chatgpt(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    said = str(record["rating"]).replace("_", "").lower()
    if said not in ("thumbsup", "thumbsdown"):
        raise RowProblem(f"rating is {record['rating']!r}, not thumbs_up or thumbs_down")
    talk = tables.get("talk", record["conversation_id"])
    if talk is None:
        raise LeftOut(LOST)
    path = path_to(talk["mapping"], record["id"], "parent")
    said_before: list[Message] = []
    for node in path:
        message = node.get("message")
        if message is None:
            continue
        content = message["content"]
        parts = content.get("parts") or []
        if content.get("content_type") != "text" or not all(isinstance(part, str) for part in parts):
            raise LeftOut(HIDDEN)
        text, role = "".join(parts), message["author"]["role"]
        if role == "tool":
            raise LeftOut("tool results in the conversation, whose calls the export does not hold as messages")
        if role == "system" and not text:
            continue  # the export's empty stand-in for a system prompt that it does not hold
        said_before += messages([{"role": role, "content": text}])
    last = path[-1]["message"]
    if last.get("status") not in (None, "finished_successfully"):
        raise LeftOut(UNFINISHED)
    yield Rating(
        said_before[:-1], said_before[-1], said == "thumbsup",
        id=str(record["id"]), conversation=str(record["conversation_id"]), user=text_of(record.get("user_id")),
        model=(last.get("metadata") or {}).get("model_slug"), time=record.get("create_time"),
        subject=f"{record.get('user_id')} {record['id']}",
    )  # fmt: skip


CHATGPT = Source(
    "chatgpt",
    "ChatGPT's data export",
    lambda r: {"id", "conversation_id", "rating"} <= r.keys() and "feedback_rating_raw" not in r,
    _chatgpt,
    table=_chatgpt_table,
)
