"""ChatGPT: message_feedback.json and conversations.json of a data export. Reverse-engineered: there is no contract."""

from collections.abc import Iterator

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import messages, text_of
from kto_release.feedback.importers.trees import path_to
from kto_release.feedback.rows import Message, RowProblem


def _chatgpt_table(record: Record, _options: Options) -> tuple[str, object] | None:
    return ("talk", record.get("conversation_id") or record.get("id")) if "mapping" in record else None


def _chatgpt(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    said = str(record["rating"]).replace("_", "").lower()
    if said not in ("thumbsup", "thumbsdown"):
        raise RowProblem(f"rating is {record['rating']!r}, not thumbs_up or thumbs_down")
    talk = tables.get("talk", record["conversation_id"])
    if talk is None:
        raise LeftOut(reasons.LOST)
    path = path_to(talk["mapping"], record["id"], "parent")
    said_before: list[Message] = []
    for node in path:
        message = node.get("message")
        if message is None:
            continue
        content = message["content"]
        parts = content.get("parts") or []
        if content.get("content_type") != "text" or not all(isinstance(part, str) for part in parts):
            raise LeftOut(reasons.HIDDEN)
        text, role = "".join(parts), message["author"]["role"]
        if role == "tool":
            raise LeftOut("tool results in the conversation, whose calls the export does not hold as messages")
        if role == "system" and not text:
            continue  # the export's empty stand-in for a system prompt that it does not hold
        said_before += messages([{"role": role, "content": text}])
    last = path[-1]["message"]
    if last.get("status") not in (None, "finished_successfully"):
        raise LeftOut(reasons.UNFINISHED)
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
