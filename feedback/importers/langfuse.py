"""Langfuse: the export of the traces' table, the download of one trace, or the blob-storage export's tables."""

from collections.abc import Iterator
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.logged import logged
from kto_release.feedback.importers.rating import UNKNOWN, LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import corrected, text_of
from kto_release.feedback.rows import RowProblem

SCORE_KEYS = {"name", "value", "source", "data_type"}
FOREIGN = {"function_name", "run_type", "span_id", "threadId"}
"""What records of other trace stores have beside input and output."""
TRACE_COLUMNS = {
    "id", "timestamp", "name", "userId", "sessionId", "release", "version", "environment", "tags", "bookmarked",
    "public", "input", "output", "metadata", "comments", "observations", "scores", "projectId", "createdAt",
    "updatedAt", "htmlPath", "latency", "totalCost", "usage", "inputTokens", "outputTokens", "totalTokens",
    "inputCost", "outputCost", "level", "observationCount", "externalId", "traceId", "type", "model", "startTime",
    "endTime", "parentObservationId", "promptId", "promptName", "promptVersion", "traceName", "statusMessage",
    "modelParameters", "timeToFirstToken", "tokensPerSecond", "providedModelName", "completionStartTime",
    "errorCount", "warningCount", "defaultCount", "debugCount", "latencyMs",
}  # fmt: skip


def _is_score(record: Record) -> bool:
    return record.keys() >= SCORE_KEYS and ("trace_id" in record or "observation_id" in record)


def _is_rated(record: Record) -> bool:
    is_trace = {"input", "output"} <= record.keys() and ("userId" in record or "scores" in record)
    return _is_score(record) or is_trace


def _table(record: Record, _options: Options) -> tuple[str, object] | None:
    if (
        _is_score(record)
        or _is_rated(record)
        or not {"id", "input", "output"} <= record.keys()
        or FOREIGN & record.keys()
    ):
        return None
    if "trace_id" in record:
        return "observation", record["id"]
    return ("trace", record["id"]) if {"user_id", "session_id", "timestamp"} & record.keys() else None


def _read(record: Record, tables: Tables, options: Options) -> Iterator[Rating | LeftOut]:
    if _is_score(record):
        yield from _scored(record, record, tables)
    elif isinstance(record.get("scores"), list):
        inside = Tables()
        inside.put("trace", record["id"], record)
        for observation in record.get("observations") or []:
            inside.put("observation", observation["id"], observation)
        for score in record["scores"]:
            try:
                yield from _scored({**score, "trace_id": record["id"]}, record, inside)
            except LeftOut as left_out:
                yield left_out
    else:
        yield from _columns(record, options)


def _scored(score: Record, owner: Record, tables: Tables) -> Iterator[Rating | LeftOut]:
    """The rating of one score; its keys are snake_case in tables and camelCase in a trace's download."""

    def get(snake: str, camel: str) -> Any:
        return score[snake] if snake in score else score.get(camel)

    kind = get("data_type", "dataType")
    if kind == "TEXT":
        raise LeftOut("a comment, no rating")
    at = get("observation_id", "observationId")
    trace = tables.get("trace", get("trace_id", "traceId"))
    if at is None and get("trace_id", "traceId") is None:
        raise LeftOut("score of a session or a data set's run, not of an answer")
    rated = tables.get("observation", at) if at is not None else trace
    if rated is None:
        raise LeftOut(reasons.LOST)
    talk = logged(rated.get("input"), rated.get("output"))
    source = score.get("source")
    if source not in ("API", "EVAL", "ANNOTATION"):
        raise RowProblem(f"the score's source is {source!r}, not API, EVAL or ANNOTATION")
    value = score.get("value")
    if kind == "CATEGORICAL":
        value = get("string_value", "stringValue")
    elif kind == "BOOLEAN" and value in (0, 1):
        value = bool(value)
    trace = trace or {}
    who = text_of(trace.get("user_id") or trace.get("userId") or owner.get("user_id"))
    rating = talk._replace(
        value=value,
        id=str(score.get("id", owner.get("id"))),
        conversation=text_of(trace.get("session_id") or trace.get("sessionId") or trace.get("id")),
        user=who,
        model=rated.get("model") or rated.get("provided_model_name") or talk.model,
        time=get("updated_at", "updatedAt") or score.get("timestamp"),
        kind="score",
        by="judge" if source == "EVAL" else "human",
        name=str(score["name"]),
        comment=score.get("comment"),
        subject=f"{get('trace_id', 'traceId')} {at} {score['name']} {source} {score.get('author_user_id') or who}",
        is_scale=True,
    )  # fmt: skip
    if kind == "CORRECTION":
        better = get("long_string_value", "longStringValue") or get("string_value", "stringValue")
        if not isinstance(better, str) or not better:
            raise LeftOut("correction without text")
        yield from corrected(rating._replace(name=""), {"role": "assistant", "content": better})
        return
    yield rating


def _columns(record: Record, options: Options) -> Iterator[Rating | LeftOut]:
    """A row of the traces' table: each score is a column of a list, which has lost who gave it."""
    columns = {
        name: value
        for name, value in record.items()
        if value not in (None, "", [])
        and (name == options.score or (name not in TRACE_COLUMNS and isinstance(value, list)))
    }
    if not columns:
        raise LeftOut("no rating")
    talk = logged(record["input"], record["output"])
    for name, values in columns.items():
        listed = values if isinstance(values, list) else [values]
        if len(set(map(str, listed))) > 1:
            yield LeftOut("several scores that contradict each other or come from several people")
            continue
        yield talk._replace(
            value=listed[0],
            id=str(record["id"]),
            conversation=text_of(record.get("sessionId") or record["id"]),
            user=text_of(record.get("userId")),
            model=record.get("model") or talk.model,
            time=record.get("timestamp"),
            kind="score",
            by=UNKNOWN,
            name=name,
            subject=f"{record['id']} {name}",
            is_scale=True,
        )  # fmt: skip


LANGFUSE = Source("langfuse", "Langfuse", _is_rated, _read, table=_table)
