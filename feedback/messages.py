"""Texts, lists and JSON to messages: every way in which a conversation stands in a column."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kto_release.feedback.columns import Cells, check_names, is_empty
from kto_release.feedback.rows import Message, RowProblem

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "function_call": "function_call",
}  # fmt: skip
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
READ_KEYS = {"role", "content", "from", "value", "tool_calls", "tool_call_id", *REASONING_KEYS}
TEXT_PARTS = {"text", "input_text", "output_text"}
THOUGHTS = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
WIDE_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ \t]*")
NARROW_MARK = re.compile(r"(?:\A\s*|\n+)(?:### )?(Human|User|Assistant|System):[ \t]*")
SPEAKERS = {"Human": "user", "User": "user", "Assistant": "assistant", "System": "system"}


def turns(cells: Cells, value: Any, name: str) -> list[Message]:
    """The messages in a list, a single message, or the JSON text of either. Raises `RowProblem`."""
    if isinstance(value, str):
        value = json_messages(value) or value
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowProblem(f"{name!r} is {type(value).__name__}, not a list of messages")
    return [_message(cells, turn, name) for turn in value]


def spoken(cells: Cells, value: Any, name: str) -> str | list[Message]:
    """A side of a row: text as it is, or the messages in a list, in JSON, or in a "Human: … Assistant: …" text."""
    if not isinstance(value, str):
        return turns(cells, value, name)
    if json_messages(value) is not None:
        return turns(cells, value, name)
    found = transcript(value)
    return [_message(cells, turn, name) for turn in found] if found and found[-1]["role"] == "assistant" else value


def answer_of(cells: Cells, text: str) -> Message:
    """An answer that stands alone as text."""
    message = {"role": "assistant", "content": text}
    _reason(cells, message, {}, "")
    return message


def json_messages(text: str) -> Any:
    """The list of messages whose JSON this text is; None where it is anything else."""
    if text.lstrip()[:1] not in ("[", "{") or not ('"role"' in text or '"from"' in text):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    found = [found] if isinstance(found, dict) else found
    whole = all(
        isinstance(turn, dict)
        and str(turn.get("role", turn.get("from"))) in ROLES
        and turn.keys() & READ_KEYS - {"role", "from"}
        for turn in found
    )
    return found if found and whole else None


def transcript(text: str) -> list[Message] | None:
    """The turns of a text like HH-RLHF's; None where it is none. A last, empty turn is left off."""
    start = NARROW_MARK.match(text)
    if start is None or start[1] == "Assistant":
        return None
    wide = list(WIDE_MARK.finditer(text))
    marks = wide if wide and wide[0].start() == 0 and len(wide) > 1 else list(NARROW_MARK.finditer(text))
    if not any(mark[1] == "Assistant" for mark in marks):
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    found = [
        {"role": SPEAKERS[mark[1]], "content": text[mark.end() : end].strip()}
        for mark, end in zip(marks, ends, strict=True)
    ]
    return found[:-1] if found[-1] == {"role": "assistant", "content": ""} else found


def _message(cells: Cells, turn: Any, name: str) -> Message:
    role = turn.get("role", turn.get("from")) if isinstance(turn, Mapping) else None
    content = turn.get("content", turn.get("value")) if isinstance(turn, Mapping) else None
    if role is None or (content is None and not turn.get("tool_calls")):
        raise RowProblem(
            f"{name!r} holds {turn!r}, not a message with role and content",
            f"{name!r} holds what is not a message with role and content",
        )
    if not isinstance(role, str):
        raise RowProblem(f"{name!r} holds a message whose role or content is no text")
    known = cells.rules.roles.get(role) or ROLES.get(role.lower())
    if known is None:
        raise RowProblem(
            f"unknown role {role!r}", todo=f"say what it means: data.roles: {{{role}: assistant}}, or system"
        )
    message: Message = {"role": known}
    message["content"], thought = _content(content, name)
    if message["role"] == "function_call":
        message |= {"role": "assistant", "content": "", "tool_calls": [_call(message["content"])]}
    if not is_empty(turn.get("tool_calls")):
        message["tool_calls"] = [_call(call) for call in _listed(turn["tool_calls"], "tool_calls")]
    if not is_empty(turn.get("tool_call_id")):
        message["tool_call_id"] = turn["tool_call_id"]
    _reason(cells, message, turn, thought)
    rest = {key: value for key, value in turn.items() if key not in READ_KEYS and not is_empty(value)}
    if message["role"] == "tool" and "name" in rest:
        message["name"] = rest.pop("name")
    if rest:
        rest = {key: value for key, value in rest.items() if not cells.rules.ignores(key)}
        cells.unused += [f"{key} (of messages)" for key in check_names(rest, f"of a message in {name!r}, the key")]
    return message


def _content(content: Any, name: str) -> tuple[str, str]:
    """The text of a content that is text or a list of parts, and the thoughts among the parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, Sequence):
        raise RowProblem(f"{name!r} holds a message whose role or content is no text")
    texts, thoughts = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        if kind in ("thinking", "reasoning") and isinstance(part.get(kind), str):
            thoughts.append(part[kind])
        elif kind in TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise RowProblem(f"{name!r} holds a content part of type {kind!r}; only text is trained on")
    # vLLM joins the parts of a message with line ends for templates that take text: so does training.
    return "\n".join(texts), "\n".join(thoughts)


def _reason(cells: Cells, message: Message, turn: Mapping[str, Any], thought: str) -> None:
    """The thoughts of a message by data.reasoning: kept under one key or where they stand, stripped, or refused."""
    keys = [key for key in REASONING_KEYS if not is_empty(turn.get(key)) and not cells.rules.ignores(key)]
    for key in keys:
        if not isinstance(turn[key], str):
            raise RowProblem(f"{key!r} is {type(turn[key]).__name__}, not text")
    texts = dict.fromkeys([turn[key].strip() for key in keys] + ([thought.strip()] if thought.strip() else []))
    inline = message["role"] == "assistant" and THOUGHTS.match(message["content"])
    if not texts and not inline:
        return
    if cells.rules.reasoning == "error":
        where = repr(keys[0]) if keys else "'<think>'" if inline else "a content part"
        raise RowProblem(
            f"a message holds thoughts ({where})",
            "a message holds thoughts",
            todo="data.reasoning: keep trains them by the template's convention, strip leaves them out",
        )
    if cells.rules.reasoning == "strip":
        message["content"] = THOUGHTS.sub("", message["content"]) if inline else message["content"]
        cells.unused.append("thoughts (stripped)")
    elif texts:
        message["reasoning_content"] = "\n".join(texts)


def _listed(value: Any, name: str) -> list[Any]:
    """A list, or the list whose JSON a text is."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise RowProblem(f"{name!r} is text, and no JSON list") from None
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowProblem(f"{name!r} is {type(value).__name__}, not a list")
    return list(value)


def tools_of(value: Any) -> list[Any]:
    """The tools that are offered, as chat templates take them: {"type": "function", "function": {…}}."""
    found = _listed(value, "tools")
    for tool in found:
        if not isinstance(tool, Mapping) or not (tool.get("name") or isinstance(tool.get("function"), Mapping)):
            raise RowProblem(f"'tools' holds {tool!r}, not a function with a name", "'tools' holds no function")
    found = [_without_nulls(tool) for tool in found]
    return [tool if "function" in tool else {"type": "function", "function": _full(tool)} for tool in found]


def _without_nulls(value: Any) -> Any:
    """Without keys whose value is null: Arrow tables give every object the keys of all, null where it had none."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list | tuple) else value


def _full(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": "", "parameters": {"type": "object", "properties": {}}, **tool}


def _call(call: Any) -> dict[str, Any]:
    """A call as chat templates take it: arguments as an object (OpenAI's API has them as JSON text)."""
    if isinstance(call, str):
        try:
            call = json.loads(call)
        except ValueError:
            raise RowProblem(f"a call of a tool is {call!r}, not JSON", "a call of a tool is not JSON") from None
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowProblem(f"a call of a tool is {call!r}, without a name", "a call of a tool has no name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise RowProblem(
                f"the arguments of {function['name']!r} are not JSON: {arguments!r}", "arguments of a call are not JSON"
            ) from None
    made = {"type": "function", "function": {"name": function["name"], "arguments": _without_nulls(arguments or {})}}
    return {"id": call["id"], **made} if call.get("id") else made
