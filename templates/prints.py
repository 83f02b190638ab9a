"""What a chat template prints besides roles and texts: templates drop what they don't know in silence."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kto_release.templates.load import own_source, printed

MARKS = ("kto-mark-name", "kto-mark-argument", "kto-mark-result", "kto-mark-thought")
TOOL = {
    "type": "function",
    "function": {"name": MARKS[0], "description": "", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"type": "function", "id": "a1b2c3d4e", "function": {"name": MARKS[0], "arguments": {"a": MARKS[1]}}}


class Prints(NamedTuple):
    """Whether a template prints each of these."""

    tools: bool
    calls: bool
    results: bool
    reasoning: bool
    """The thoughts of the last answer, from the key reasoning_content."""
    think: bool
    """Whether it knows <think>: thoughts may then stand at the start of an answer's text."""


UNPRINTED = {
    "tools": "the template prints no tools",
    "calls": "the template prints no calls of tools",
    "results": "the template prints no results of tools",
    "reasoning": "the template prints no thoughts",
}


def prints(tokenizer: Any) -> Prints:
    """What the tokenizer's template prints: found by rendering short conversations with marks in them."""
    user: dict[str, Any] = {"role": "user", "content": "a"}
    call: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    result = {"role": "tool", "content": MARKS[2], "tool_call_id": CALL["id"], "name": MARKS[0]}
    thought = {"role": "assistant", "content": "b", "reasoning_content": MARKS[3]}

    def shows(marks: Sequence[str], messages: Sequence[Mapping[str, Any]], *, prompt: bool, tools: Any = None) -> bool:
        text = _text(tokenizer, messages, prompt=prompt, tools=tools)
        return all(mark in text for mark in marks)

    return Prints(
        shows(MARKS[:1], [user], prompt=True, tools=[TOOL]),
        shows(MARKS[:2], [user, call], prompt=False, tools=[TOOL]),
        shows(MARKS[2:3], [user, call, result], prompt=True, tools=[TOOL]),
        shows(MARKS[3:], [user, thought], prompt=False),
        "</think>" in own_source(tokenizer),
    )


def _text(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, prompt: bool, tools: Any) -> str:
    return printed(tokenizer, messages, prompt=prompt, tools=tools).text or ""
