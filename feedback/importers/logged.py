"""Inputs and outputs as applications log them in trace stores: text, messages, or a request and its response."""

import json
from collections.abc import Mapping
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Rating
from kto_release.feedback.importers.texts import choice, messages, user
from kto_release.feedback.rows import RowProblem

SETTINGS = {
    "model", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stream", "stream_options", "stop", "seed",
    "n", "frequency_penalty", "presence_penalty", "user", "tool_choice", "parallel_tool_calls", "metadata", "store",
    "reasoning_effort", "logprobs", "top_logprobs", "top_k", "service_tier", "timeout", "extra_headers",
}  # fmt: skip
"""What a request holds besides its messages and tools: nothing of it is what the model reads."""


def logged(given: Any, answer: Any) -> Rating:
    """The prompt, answer, tools and model of an input and output, not rated yet.

    Raises `RowProblem` where an app logged something of its own: what the model saw can't be told then.
    """
    given, answer = plain(given), plain(answer)
    if given in (None, "", [], {}) or answer in (None, "", [], {}):
        raise LeftOut(reasons.LOST)
    tools, model = None, None
    if isinstance(given, Mapping) and "messages" in given and set(given) <= {"messages", "tools"} | SETTINGS:
        tools, model, given = given.get("tools") or None, given.get("model"), given["messages"]
    if isinstance(given, str):
        prompt = user(given)
    elif isinstance(given, list):
        prompt = messages(given, "input")
    else:
        raise RowProblem(
            f"the input is {_kind(given)}, not text or messages",
            "the input is not text or messages",
            todo="export the calls of the model (generations, spans of kind LLM): their input is what it saw",
        )
    if isinstance(answer, Mapping) and "choices" in answer:
        message, answered_by = choice(answer)
        return Rating(prompt, message, None, "", model=answered_by or model, tools=tools)
    if isinstance(answer, str):
        answer = {"role": "assistant", "content": answer}
    if isinstance(answer, Mapping) and set(answer) == {"messages"}:
        answer = answer["messages"]
    found = messages(answer, "output") if isinstance(answer, Mapping | list) else []
    if len(found) != 1:
        raise RowProblem(
            f"the output is {_kind(answer)}, not text or one message", "the output is not text or one message"
        )
    return Rating(prompt, found[0], None, "", model=model, tools=tools)


def plain(value: Any) -> Any:
    """A value, or what its JSON says where it is the JSON of a conversation."""
    if isinstance(value, str) and value[:1] in {"[", "{", '"'}:
        try:
            found = json.loads(value)
        except ValueError:
            return value
        is_talk = '"role"' in value or '"messages"' in value or '"choices"' in value
        return found if is_talk or isinstance(found, str) else value
    return value


def _kind(value: Any) -> str:
    return f"an object of {', '.join(map(repr, sorted(value)))}" if isinstance(value, Mapping) else type(value).__name__
