"""LangSmith: {"feedback": …, "run": …}, or feedback and runs as records of their own.

LangChain's nesting of messages is not verified.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import assistant, choice, corrected, messages, text_of
from kto_release.feedback.rows import Message, RowProblem

SHORT = {"human": "user", "ai": "assistant", "system": "system"}
LANGCHAIN = {"HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool"}


def _smith_table(record: Record, _options: Options) -> tuple[str, object] | None:
    return ("run", record["id"]) if {"id", "run_type", "inputs", "outputs"} <= record.keys() else None


def _is_smith(record: Record) -> bool:
    return {"feedback", "run"} <= record.keys() or {"run_id", "key", "score"} <= record.keys()


def _smith(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    said = record["feedback"] if "run" in record else record
    run = record["run"] if "run" in record else tables.get("run", record["run_id"])
    if run is None:
        raise LeftOut(reasons.LOST)
    if run.get("error"):
        raise LeftOut(reasons.FAILED)
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
        comment=said.get("comment"),
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
        raise LeftOut(reasons.LOST)
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
