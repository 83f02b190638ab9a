"""TensorZero: its tables ChatInference, and BooleanMetric-, FloatMetric-, Comment- and DemonstrationFeedback."""

import json
from collections.abc import Iterator
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import assistant, corrected, messages, text_of
from kto_release.feedback.rows import Message, RowProblem


def _zero_table(record: Record, _options: Options) -> tuple[str, object] | None:
    return ("inference", record["id"]) if {"function_name", "input", "output"} <= record.keys() else None


def _is_zero(record: Record) -> bool:
    return {"target_id", "value"} <= record.keys() or {"inference_id", "value"} <= record.keys()


def _zero(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    is_better = "inference_id" in record
    if not is_better and "metric_name" not in record:
        raise LeftOut("a comment, no rating")
    target = record["inference_id"] if is_better else record["target_id"]
    found = tables.get("inference", target)
    if found is None:
        is_episode = bool(tables.group("inference", "episode_id", target))
        raise LeftOut("rating of a whole episode, not of one answer" if is_episode else reasons.LOST)
    given = _json(found["input"])
    prompt: list[Message] = [{"role": "system", "content": given["system"]}] if given.get("system") else []
    prompt += messages(given["messages"])
    if prompt[0]["role"] == "system" and not isinstance(prompt[0]["content"], str):
        raise RowProblem("the system prompt is a template's arguments, not text", todo="export the rendered input")
    rating = Rating(
        prompt, _blocks(found["output"]), record["value"],
        id=str(record["id"]), conversation=text_of(found.get("episode_id")),
        user=text_of(_json(found.get("tags") or {}).get("user_id")), model=found.get("variant_name"),
        time=record.get("timestamp"), kind="score", name=str(record.get("metric_name") or ""),
        subject=f"{target} {record.get('metric_name')}", is_scale=True,
    )  # fmt: skip
    if is_better:
        yield from corrected(rating, _blocks(record["value"]))
    else:
        yield rating


def _json(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _blocks(value: Any) -> Message:
    value = _json(value)
    return assistant(value) if isinstance(value, str) else messages([{"role": "assistant", "content": value}])[0]


TENSORZERO = Source("tensorzero", "TensorZero", _is_zero, _zero, table=_zero_table)
