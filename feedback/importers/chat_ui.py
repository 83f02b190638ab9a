"""chat-ui: the Parquet file that its export writes."""

from collections.abc import Iterator, Mapping

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import messages, text_of
from kto_release.feedback.rows import Message, RowProblem


def _chat_ui(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    talk: list[Message] = []
    found: list[Rating | LeftOut] = []
    has_lost = False
    for position, node in enumerate(record["messages"]):
        score = node.get("score")
        if score not in (None, 0, 1, -1):
            raise RowProblem(f"score is {score!r}, not 1 or -1")
        if node.get("files"):
            raise LeftOut(reasons.HIDDEN)
        message = messages([{"role": node["from"], "content": node["content"]}])[0]
        # Two answers in a row are one question's, answered anew: the flat list no longer says which one went on.
        has_lost = has_lost or bool(talk and message["role"] == talk[-1]["role"] == "assistant")
        if score:
            rated = Rating(
                list(talk), message, score == 1,
                id=f"{record.get('title', '')} {position}", conversation=text_of(record.get("title")),
                model=record.get("model"), time=node.get("updatedAt") or record.get("updated_at"),
            )  # fmt: skip
            found.append(LeftOut(reasons.BRANCHES) if has_lost else rated)
        talk.append(message)
    if not found:
        raise LeftOut(reasons.UNRATED)
    yield from found


CHAT_UI = Source(
    "chat-ui",
    "Hugging Face's chat-ui",
    lambda r: (
        isinstance(r.get("messages"), list) and any(isinstance(m, Mapping) and "from" in m for m in r["messages"])
    ),
    _chat_ui,
)
