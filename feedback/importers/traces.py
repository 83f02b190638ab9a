"""Trace stores that rate by name: LangSmith, Phoenix, TensorZero, MLflow."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kto_release.feedback.importers.deciding import RULE
from kto_release.feedback.importers.logged import logged
from kto_release.feedback.importers.rating import (
    FAILED,
    LOST,
    UNRATED,
    LeftOut,
    Options,
    Rating,
    Record,
    Source,
    Tables,
    assistant,
    choice,
    corrected,
    messages,
    text_of,
)
from kto_release.feedback.rows import Message, RowProblem

SHORT = {"human": "user", "ai": "assistant", "system": "system"}
LANGCHAIN = {"HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool"}


# LangSmith: {"feedback": …, "run": …}, or feedback and runs as records of their own. LangChain's nesting: not verified.


def _smith_table(record: Record, _options: Options) -> tuple[str, object] | None:
    return ("run", record["id"]) if {"id", "run_type", "inputs", "outputs"} <= record.keys() else None


def _is_smith(record: Record) -> bool:
    return {"feedback", "run"} <= record.keys() or {"run_id", "key", "score"} <= record.keys()


def _smith(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    said = record["feedback"] if "run" in record else record
    run = record["run"] if "run" in record else tables.get("run", record["run_id"])
    if run is None:
        raise LeftOut(LOST)
    if run.get("error"):
        raise LeftOut(FAILED)
    if run.get("run_type") not in ("llm", None):
        raise LeftOut(f"rating of a {run['run_type']!r} run, whose inputs are the app's and not the model's")
    answer, model = _smith_answer(run["outputs"] or {})
    source = said.get("feedback_source") or {}
    value = said.get("score") if said.get("score") is not None else said.get("value")
    params = (run.get("extra") or {}).get("invocation_params") or {}
    rating = Rating(
        _smith_prompt(run["inputs"] or {}), answer, value,
        id=str(said["id"]), conversation=text_of(said.get("trace_id") or run.get("trace_id")),
        user=text_of(source.get("user_id")), model=model or params.get("model") or params.get("model_name"),
        time=said.get("modified_at") or said.get("created_at"), kind="score",
        by="judge" if source.get("type") == "model" else "human", name=str(said["key"]),
        subject=f"{said['run_id']} {said['key']} {source.get('user_id')} {source.get('type')}", is_scale=True,
    )  # fmt: skip
    correction = said.get("correction")
    if correction:
        better = correction if isinstance(correction, str) else None
        if isinstance(correction, Mapping):
            texts = [text for text in correction.values() if isinstance(text, str)]
            better = texts[0] if len(correction) == len(texts) == 1 else None
        if better is None:
            raise RowProblem(f"the correction is {correction!r}, not one text", "a correction that is not one text")
        yield from corrected(rating, assistant(better))
        return
    yield rating


def _smith_prompt(inputs: Record) -> list[Message]:
    listed = inputs.get("messages")
    if not isinstance(listed, list) or not listed:
        raise RowProblem("the run's inputs hold no messages", todo="export the runs of type llm")
    if isinstance(listed[0], list):
        if len(listed) > 1:
            raise RowProblem("the run's inputs are a batch of several conversations")
        listed = listed[0]
    return messages([_langchain(message) for message in listed])


def _langchain(message: Any) -> Any:
    """A message of LangChain's serialised form as role and content; any other as it is."""
    if isinstance(message, Mapping) and message.get("type") in SHORT and "role" not in message:
        return {"role": SHORT[message["type"]], "content": message.get("content", "")} | (
            {"tool_calls": message["tool_calls"]} if message.get("tool_calls") else {}
        )
    if not isinstance(message, Mapping) or "kwargs" not in message:
        return message
    name = message["id"][-1].removesuffix("Chunk")
    if name not in LANGCHAIN:
        raise RowProblem(f"a message of LangChain's kind {name!r}")
    inside = message["kwargs"]
    calls = [
        {"id": call.get("id"), "function": {"name": call["name"], "arguments": call.get("args") or {}}}
        for call in inside.get("tool_calls") or []
    ]
    made = {"role": LANGCHAIN[name], "content": inside.get("content", "")}
    if inside.get("tool_call_id"):
        made["tool_call_id"] = inside["tool_call_id"]
    return {**made, "tool_calls": calls} if calls else made


def _smith_answer(outputs: Record) -> tuple[Message, str | None]:
    if "choices" in outputs:
        return choice(outputs)
    if outputs.get("role") == "assistant":
        return messages([outputs])[0], None
    listed = outputs.get("generations")
    if not outputs or outputs == {"generations": []}:
        raise LeftOut(LOST)
    if not isinstance(listed, list) or not listed:
        raise RowProblem(f"the run's outputs are {', '.join(map(repr, sorted(outputs)))}: no answer of a model's call")
    found = listed[0] if isinstance(listed[0], list) else listed
    if len(found) != 1 or (isinstance(listed[0], list) and len(listed) != 1):
        raise RowProblem("the run's outputs hold several answers, and the rating does not say which one it is of")
    info = found[0].get("generation_info") or {}
    if info.get("finish_reason") == "length":
        raise LeftOut("unfinished answer")
    if found[0].get("message"):
        return messages([_langchain(found[0]["message"])])[0], info.get("model_name")
    return assistant(found[0].get("text")), info.get("model_name")


LANGSMITH = Source("langsmith", "LangSmith", _is_smith, _smith, table=_smith_table)


# Phoenix: a data set's JSON lines with annotations, or annotations joined with spans by their id.


def _phoenix_note(record: Record) -> bool:
    return {"annotator_kind", "name"} <= record.keys() and ("span_id" in record or "trace_id" in record)


def _phoenix_row(record: Record) -> bool:
    noted = record.get("metadata")
    return {"input", "output"} <= record.keys() and isinstance(noted, Mapping) and "annotations" in noted


def _phoenix_table(record: Record, _options: Options) -> tuple[str, object] | None:
    if _phoenix_note(record) or _phoenix_row(record) or not {"input", "output"} <= record.keys():
        return None
    name = record.get("span_id")
    return ("span", name) if name is not None else None


def _phoenix_refusal(record: Record) -> str | None:
    if set(record) == {"messages"}:
        return "the openai_ft export has lost the annotations: export the data set as JSONL"
    return None


def _phoenix(record: Record, tables: Tables, options: Options) -> Iterator[Rating | LeftOut]:
    if _phoenix_row(record):
        noted = [
            {**note, "name": name} for name, notes in record["metadata"]["annotations"].items() for note in notes or []
        ]
        talk = record
    else:
        noted = [{**record, **(record.get("result") or {})}]
        found = tables.get("span", record.get("span_id")) if record.get("span_id") else None
        if found is None:
            raise LeftOut("rating of a whole trace, not of an answer" if not record.get("span_id") else LOST)
        talk = found
    base = logged(talk["input"], talk["output"])
    wants_number = options.desirable is not None and RULE.fullmatch(options.desirable) is not None
    for note in noted:
        kind = note["annotator_kind"]
        if kind not in ("HUMAN", "LLM", "CODE"):
            raise RowProblem(f"annotator_kind is {kind!r}, not HUMAN, LLM or CODE")
        label, score = note.get("label"), note.get("score")
        who = text_of(note.get("user_id"))
        yield base._replace(
            value=score if wants_number or label in (None, "") else label,
            id=str(note.get("id") or record["id"]), user=who, time=note.get("updated_at") or note.get("created_at"),
            kind="score", by="human" if kind == "HUMAN" else "judge", name=str(note["name"]),
            subject=f"{note.get('span_id') or record['id']} {note['name']} {kind} {who}", is_scale=True,
        )  # fmt: skip


PHOENIX = Source(
    "phoenix",
    "Arize Phoenix",
    lambda r: _phoenix_note(r) or _phoenix_row(r),
    _phoenix,
    table=_phoenix_table,
    refusal=_phoenix_refusal,
)


# TensorZero: its tables ChatInference, and BooleanMetric-, FloatMetric-, Comment- and DemonstrationFeedback.


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
        raise LeftOut("rating of a whole episode, not of one answer" if is_episode else LOST)
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


# MLflow: assessments, within their trace or joined with it by trace_id.


def _flow_record(record: Record) -> Record:
    """A trace as one level: its info, and the request and response of its data or of its root span."""
    info, data = record.get("info"), record.get("data")
    if not isinstance(info, Mapping) or not isinstance(data, Mapping):
        return record
    roots = [s for s in data.get("spans") or [] if not (s.get("parent_span_id") or s.get("parent_id"))]
    seen = roots[0].get("attributes", {}) if roots else {}
    sides = {
        "request": data.get("request") or seen.get("mlflow.spanInputs"),
        "response": data.get("response") or seen.get("mlflow.spanOutputs"),
    }
    return {**info, **sides}


def _flow_table(record: Record, _options: Options) -> tuple[str, object] | None:
    record = _flow_record(record)
    if record.get("assessments") or not {"request", "response"} <= record.keys():
        return None
    name = record.get("trace_id") or record.get("request_id")
    return ("trace", name) if name is not None else None


def _is_flow(record: Record) -> bool:
    alone = {"trace_id", "name", "source"} <= record.keys() and isinstance(record["source"], Mapping)
    return alone or isinstance(_flow_record(record).get("assessments"), list)


def _flow(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    record = _flow_record(record)
    inside = record.get("assessments")
    trace = record if inside is not None else tables.get("trace", record["trace_id"])
    if inside == []:
        raise LeftOut(UNRATED)
    if trace is None:
        raise LeftOut(LOST)
    trace = _flow_record(trace)
    base = logged(trace.get("request"), trace.get("response"))
    for said in inside if inside is not None else [record]:
        source = said["source"]
        kind = source.get("source_type")
        if kind not in {"HUMAN", "LLM_JUDGE", "AI_JUDGE", "CODE"}:
            raise RowProblem(f"source_type is {kind!r}, not HUMAN, LLM_JUDGE or CODE")
        value = said.get("value")
        if value is None and isinstance(said.get("feedback"), Mapping):
            value = said["feedback"].get("value")
        who, name = text_of(source.get("source_id")), str(said.get("name") or said.get("assessment_name"))
        of = text_of(said.get("trace_id") or record.get("trace_id"))
        if said.get("valid") is False:
            yield LeftOut("superseded by a later rating of the same answer")
            continue
        yield base._replace(
            value=value,
            id=str(said.get("assessment_id") or of),
            conversation=of,
            user=who,
            time=said.get("last_update_time") or said.get("create_time"),
            kind="score",
            by="human" if kind == "HUMAN" else "judge",
            name=name,
            subject=f"{of} {name} {kind} {who}",
            is_scale=True,
        )


MLFLOW = Source("mlflow", "MLflow", _is_flow, _flow, table=_flow_table)
