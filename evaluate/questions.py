"""A row of a question file as something to ask: one question, or a conversation with system prompt and earlier turns.

A row holds `instruction`, `prompt` or `messages`, and maybe `system` and `dataset`. A conversation has one text, too:
it is what the judge is shown, what a person reads, and what answers and judgements are found by.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kto_release.json_rows import is_text

Messages = list[dict[str, Any]]
ROLES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
OTHER_NAMES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}
"""Roles as some exports spell them."""
EXPECTED = "'instruction', 'prompt' or 'messages' in each row: a text, or messages of role and content"


class Instruction(NamedTuple):
    """One thing to answer."""

    text: str
    """The question; or the whole conversation, each turn under its role."""
    dataset: str
    """The collection that it belongs to, for example helpful_base; empty where the file names none."""
    conversation: str = ""
    """JSON of the messages, where there is more than the one question."""

    @property
    def messages(self) -> Messages:
        """What the model is asked."""
        if not self.conversation:
            return [{"role": "user", "content": self.text}]
        found: Messages = json.loads(self.conversation)
        return found

    @property
    def question(self) -> str:
        """The user's last words."""
        return str(self.messages[-1]["content"])


def instruction_of(row: Mapping[str, Any]) -> Instruction:
    """The row as something to ask. Raises `ValueError` with what is wrong with it, in words."""
    asked = [_messages(name, row[name]) for name in ("messages", "prompt", "instruction") if row.get(name) is not None]
    if not asked:
        raise ValueError("no text under 'instruction'")
    messages = asked[0]
    texts = {_text(messages), str(messages[-1]["content"])}
    if any(_text(other) not in texts for other in asked[1:]):
        raise ValueError("two different questions under 'instruction', 'prompt' and 'messages'")
    system = row.get("system")
    if system:
        if not is_text(system) or messages[0]["role"] == "system":
            raise ValueError("a second system prompt under 'system'" if is_text(system) else "no text under 'system'")
        messages = [{"role": "system", "content": system}, *messages]
    return from_messages(messages, str(row.get("dataset") or ""))


def from_messages(messages: Messages, dataset: str) -> Instruction:
    """An instruction of messages that end with the user's."""
    if len(messages) == 1 and messages[0].keys() == {"role", "content"}:
        return Instruction(str(messages[0]["content"]), dataset)
    return Instruction(_text(messages), dataset, json.dumps(messages, ensure_ascii=False, sort_keys=True))


def _text(messages: Messages) -> str:
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{ROLES[one['role']]}: {_said(one)}" for one in messages)


def _said(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    called = json.dumps(calls, ensure_ascii=False, sort_keys=True) if calls else ""
    return "\n".join(part for part in (str(message["content"]), called) if part)


def _messages(name: str, value: Any) -> Messages:
    """The messages under a key: of a text, of a list, or of JSON of a list in a table's cell."""
    if name == "messages" and isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("no JSON of messages under 'messages'") from None
    if isinstance(value, str):
        if not is_text(value) or not value.strip():
            raise ValueError(f"no text under {name!r}")
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise ValueError(f"neither a text nor messages under {name!r}")
    messages = [_message(name, one) for one in value]
    if messages[-1]["role"] != "user":
        raise ValueError(f"messages under {name!r} that do not end with the user's")
    if not messages[-1]["content"].strip():
        raise ValueError(f"no text in the last message under {name!r}")
    if any(one["role"] == "system" for one in messages[1:]):
        raise ValueError(f"a system prompt within the messages under {name!r}")
    return messages


def _message(name: str, one: Any) -> dict[str, Any]:
    plain = one if isinstance(one, dict) else {}
    role = plain.get("role") or plain.get("from")
    role = OTHER_NAMES.get(role, role) if isinstance(role, str) else None
    if role not in ROLES:
        raise ValueError(f"a message under {name!r} whose role is none of {', '.join(ROLES)}")
    content = plain.get("content", plain.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None
    if not is_text(content):
        raise ValueError(f"a message under {name!r} whose content is no text")
    return {"role": role, "content": content}


def problems_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Instruction], dict[str, list[int]]]:
    """The rows as instructions, and the numbers (from 1) of those that are none, by what is wrong with them."""
    found, wrong = [], dict[str, list[int]]()
    for number, row in enumerate(rows, 1):
        try:
            found.append(instruction_of(row))
        except ValueError as problem:
            wrong.setdefault(str(problem), []).append(number)
    return found, wrong
