"""AnythingLLM: the export of workspace chats as JSON. It holds no earlier turns."""

from collections.abc import Iterator

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import assistant, text_of, user
from kto_release.feedback.rows import RowProblem


def _is_rated(record: Record) -> bool:
    return {"prompt", "response", "workspace"} <= record.keys() and "rating" in record


def _refusal(record: Record) -> str | None:
    if {"prompt", "response", "workspace"} <= record.keys() and "rating" not in record:
        return "this export has lost the ratings: export the chats as JSON (or CSV), not as JSONL or Alpaca"
    return None


def _read(record: Record, _tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    rating = record["rating"]
    if rating in ("--", None, ""):
        raise LeftOut(reasons.UNRATED)
    if rating not in ("GOOD", "BAD"):
        raise RowProblem(f"rating is {rating!r}, not GOOD, BAD or --", "a rating that is not GOOD, BAD or --")
    if record.get("attachments"):
        raise LeftOut(reasons.HIDDEN)
    name = str(record.get("id", ""))
    yield Rating(
        user(record["prompt"]), assistant(record["response"]), rating == "GOOD",
        id=name, user=text_of(record.get("username")), time=record.get("sent_at"),
        subject=f"{record['workspace']} {name}",
    )  # fmt: skip


ANYTHING_LLM = Source("anythingllm", "AnythingLLM", _is_rated, _read, refusal=_refusal, has_history=False)
