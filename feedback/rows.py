"""What a row is made into, and what is said of one that can't be."""

import json
from typing import Any, NamedTuple

Message = dict[str, Any]
"""role and content, both text; of an assistant also tool_calls and reasoning_content, of a tool tool_call_id, name."""
Turn = tuple[str, ...]
"""(role, content) of a message, or (role, content, JSON of whatever else it holds)."""
TOOLS = "tools"
"""The role under which the tools that are offered stand before the first message of a prompt."""


class Feedback(NamedTuple):
    """One completion of one prompt, and whether people want it."""

    prompt: tuple[Turn, ...]
    """Everything that the answer answers: the tools, where there are any, then the messages."""
    completion: str
    """The text of the answer; empty where it only calls tools."""
    desirable: bool
    beside: str = ""
    """JSON of what else the answer's message holds: tool_calls, reasoning_content; "" for nothing."""

    @property
    def messages(self) -> list[Message]:
        """The prompt as messages."""
        return [message_of(turn) for turn in self.prompt if turn[0] != TOOLS]

    @property
    def tools(self) -> list[Any] | None:
        """The tools that are offered."""
        return json.loads(self.prompt[0][1]) if self.prompt and self.prompt[0][0] == TOOLS else None

    @property
    def answer(self) -> Message:
        """The completion as a message."""
        return message_of(
            ("assistant", self.completion, self.beside) if self.beside else ("assistant", self.completion)
        )


def turn_of(message: Message) -> Turn:
    """A message as something that can be compared and hashed."""
    beside = {key: value for key, value in message.items() if key not in ("role", "content")}
    turn = (message["role"], message["content"])
    return (*turn, canonical(beside)) if beside else turn


def message_of(turn: Turn) -> Message:
    """The message that `turn_of` was given."""
    return {"role": turn[0], "content": turn[1], **(json.loads(turn[2]) if len(turn) > 2 else {})}


def canonical(plain: Any) -> str:
    """JSON that is equal for equal data."""
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)


class RowProblem(ValueError):  # noqa: N818 - it is a problem of the row, told in its words
    """What is wrong with one row, in words that follow "row N: "."""

    def __init__(self, text: str, kind: str | None = None, *, fault: bool = True, todo: str | None = None) -> None:
        super().__init__(text)
        self.kind = kind or text
        """The reason without this row's values: what problems are counted by."""
        self.fault = fault
        """False where the row is right, and the recipe has it left out."""
        self.todo = todo
        self.identity: str | None = None
        """"id 'a7'", where data.columns names an id."""
