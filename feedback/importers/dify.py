"""Dify: the feedback export of an app (JSON or CSV). It cuts answers at 500 characters and holds no earlier turns."""

from collections.abc import Iterator

from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import assistant, text_of, user
from kto_release.feedback.rows import RowProblem

CUT = "cut by the exporter at 500 characters: Dify's database has the whole (messages.answer with message_feedbacks)"


def _read(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    raw = record["feedback_rating_raw"]
    if raw in (None, ""):
        raise LeftOut("no rating")
    if raw not in ("like", "dislike"):
        raise RowProblem(f"feedback_rating_raw is {raw!r}, not like or dislike")
    answer = assistant(record["ai_response"])
    if len(answer["content"]) == 503 and answer["content"].endswith("..."):
        raise LeftOut(CUT)
    who = text_of(record.get("from_end_user_id") or record.get("from_account_name"))
    kind = "label" if record.get("feedback_source") == "admin" else "thumb"
    yield Rating(
        user(record["user_query"]), answer, raw == "like",
        id=str(record["feedback_id"]), conversation=text_of(record.get("conversation_id")), user=who,
        time=record.get("feedback_date"), kind=kind, comment=record.get("feedback_comment"),
        subject=f"{record.get('message_id')} {record.get('feedback_source')} {who}",
    )  # fmt: skip


DIFY = Source(
    "dify",
    "Dify",
    lambda r: {"feedback_rating_raw", "ai_response"} <= r.keys(),
    _read,
    has_history=False,
    wrapper="feedback_data",
)
