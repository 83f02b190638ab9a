"""Helicone: `npx @helicone/export --include-body`, as JSON or JSON lines."""

from collections.abc import Iterator

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import choice, messages, text_of


def _is_rated(record: Record) -> bool:
    return "request_id" in record and "response_status" in record


def _refusal(record: Record) -> str | None:
    if _is_rated(record) and not {"response_body", "feedback_rating"} <= record.keys():
        return "it has no response_body or no feedback_rating: npx @helicone/export --include-body --format jsonl"
    return None


def _read(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    if record["feedback_rating"] is None:
        raise LeftOut(reasons.UNRATED)
    if record["response_status"] != 200:
        raise LeftOut(reasons.FAILED)
    request = record["request_body"] or {}
    if not request.get("messages") or not record["response_body"]:
        raise LeftOut(reasons.LOST)
    answer, model = choice(record["response_body"])
    properties = record.get("request_properties") or {}
    yield Rating(
        messages(request["messages"]), answer, record["feedback_rating"],
        id=str(record.get("feedback_id") or record["request_id"]),
        conversation=text_of(properties.get("Helicone-Session-Id")),
        user=text_of(record.get("request_user_id")),
        model=record.get("response_model") or model or record.get("request_model"),
        time=record.get("feedback_created_at") or record.get("request_created_at"),
        subject=str(record["request_id"]),
        tools=request.get("tools"),
    )  # fmt: skip


HELICONE = Source("helicone", "Helicone", _is_rated, _read, refusal=_refusal)
