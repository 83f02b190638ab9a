"""Open WebUI: Admin, Evaluations, Feedbacks, export (JSON); or the export of all chats of older versions.

Layout read in stored source files, which may be a fork's: not checked against an export of today's version.
"""

import re
from collections.abc import Iterator, Mapping

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import messages, text_of
from kto_release.feedback.importers.trees import path_to
from kto_release.feedback.rows import Message, RowProblem

MARKUP = re.compile(r'<details type="(\w+)"[^>]*>\s*(?:<summary>.*?</summary>)?(.*?)</details>\s*', re.DOTALL)


def _is_rated(record: Record) -> bool:
    talk = record.get("chat")
    return ("snapshot" in record and "data" in record) or (isinstance(talk, Mapping) and "history" in talk)


def _refusal(record: Record) -> str | None:
    if {"rating", "model_id", "chat_id"} <= record.keys():
        return "Open WebUI's CSV holds no text: export the feedback as JSON (Admin, Evaluations, Feedbacks)"
    return None


def _read(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    if "snapshot" not in record:
        yield from _old(record)
        return
    if record.get("type", "rating") != "rating":
        raise LeftOut(f"feedback of type {record['type']!r}")
    data, meta = record["data"] or {}, record.get("meta") or {}
    at = meta.get("message_id")
    # A rating withdrawn in the conversation's own tree is told by the record: what is rated is the message, by a user.
    subject = f"{record.get('user_id')} {meta.get('chat_id')} {at}"
    time = record.get("updated_at") or record.get("created_at")
    value = data.get("rating")
    if value is None:
        raise LeftOut(reasons.UNRATED, subject=subject, time=time)
    chat = ((record.get("snapshot") or {}).get("chat") or {}).get("chat")
    if not chat or at is None:
        raise LeftOut(reasons.LOST)
    is_arena = bool(meta.get("arena"))
    value = {"1.0": "1", "-1.0": "-1", "0.0": "0"}.get(str(value), str(value))
    if value == "0":
        raise LeftOut("draw" if is_arena else "neutral rating", subject=subject, time=time)
    if str(value) not in ("1", "-1"):
        raise RowProblem(f"rating is {value!r}, not 1, -1 or 0", "a rating that is not 1, -1 or 0")
    rated = _rating(chat, at)._replace(
        value=value == "1",
        id=str(record["id"]),
        conversation=text_of(meta.get("chat_id")),
        user=text_of(record.get("user_id")),
        time=time,
        kind="arena" if is_arena else "thumb",
        subject=subject,
        comment=_comment(data),
    )
    if rated.model is None:
        rated = rated._replace(model=data.get("model_id") or meta.get("model_id"))
    yield rated
    if is_arena:
        yield from _siblings(chat, at, data.get("sibling_model_ids") or [], rated)


def _siblings(chat: Record, at: str, models: list[str], rated: Rating) -> Iterator[Rating | LeftOut]:
    nodes = chat["history"]["messages"]
    for model in models:
        found = [
            name
            for name, node in nodes.items()
            if name != at and node.get("parentId") == nodes[at].get("parentId") and node.get("model") == model
        ]
        if len(found) != 1:
            yield LeftOut("arena answer that the export does not hold")
            continue
        try:
            other = _rating(chat, found[0])
        except LeftOut as left_out:
            yield left_out
            continue
        yield rated._replace(
            answer=other.answer, model=model, value=not rated.value, subject=f"{rated.subject} against {model}"
        )


def _rating(chat: Record, at: str) -> Rating:
    nodes = chat.get("history", {}).get("messages") or {}
    path = path_to(nodes, at, "parentId")
    if any(node.get("files") or node.get("sources") or node.get("citations") for node in path) or chat.get("files"):
        raise LeftOut(reasons.HIDDEN)
    last = path[-1]
    if last.get("role") != "assistant":
        raise RowProblem(f"the rated message is of {last.get('role')!r}, not of the assistant")
    if last.get("error"):
        raise LeftOut(reasons.FAILED)
    if last.get("done") is False:
        raise LeftOut(reasons.UNFINISHED)
    talk = [_message(node) for node in path]
    system = (chat.get("params") or {}).get("system") or chat.get("system")
    if system and talk[0]["role"] != "system":
        talk.insert(0, {"role": "system", "content": system})
    return Rating(talk[:-1], talk[-1], None, str(at), model=last.get("model"), time=last.get("timestamp"))


def _message(node: Record) -> Message:
    """A message of the tree; thoughts that stand in its text as markup get their own key."""
    found = messages([{"role": node.get("role"), "content": node.get("content")}])[0]
    thoughts = []
    for markup in MARKUP.finditer(found["content"]):
        if markup[1] != "reasoning":
            raise LeftOut("tool call that the export holds as markup only")
        thoughts.append("\n".join(line.removeprefix("> ") for line in markup[2].strip().splitlines()))
    if thoughts:
        found["content"] = MARKUP.sub("", found["content"])
        found["reasoning_content"] = "\n".join(thoughts)
    return found


def _comment(data: Record) -> str | None:
    """The reason that was picked and the words that were typed: "not_factual: it is Tuesday"."""
    said = [data.get(key) for key in ("reason", "comment")]
    return ": ".join(text.strip() for text in said if isinstance(text, str) and text.strip()) or None


def _old(record: Record) -> Iterator[Rating | LeftOut]:
    """Every annotated message of one chat."""
    nodes = record["chat"]["history"].get("messages") or {}
    for at, node in nodes.items():
        note = node.get("annotation")
        if note is None:
            continue
        value = note.get("rating")
        if str(value) not in ("1", "-1"):
            yield LeftOut("neutral rating" if str(value) == "0" else reasons.UNRATED)
            continue
        try:
            rated = _rating(record["chat"], at)
        except LeftOut as left_out:
            yield left_out
            continue
        owner, talk = text_of(record.get("user_id")), text_of(record.get("id"))
        subject = f"{owner} {talk} {at}"
        yield rated._replace(
            value=str(value) == "1", conversation=talk, user=owner, subject=subject, comment=_comment(note)
        )


OPEN_WEBUI = Source("open-webui", "Open WebUI", _is_rated, _read, refusal=_refusal)
