"""Conversations that every template is tried with; a release carries them with the ids that they must give."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Message = Mapping[str, Any]
"""A turn of a conversation: role (system, user, assistant or tool) and content, both text; an assistant's may have
tool_calls and reasoning_content, a tool's tool_call_id and name, as transformers' templates take them."""


class Sample(NamedTuple):
    """A conversation that ends with an answer."""

    name: str
    prompt: tuple[Message, ...]
    answer: str

    @property
    def whole(self) -> tuple[Message, ...]:
        """The prompt and the answer."""
        return (*self.prompt, {"role": "assistant", "content": self.answer})


def _turns(*contents: str) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple({"role": roles[place % 2], "content": content} for place, content in enumerate(contents))


SYSTEM_SAMPLE = Sample(
    "a system message",
    ({"role": "system", "content": "Answer in one short sentence."}, *_turns("Why is the sky blue?")),
    "Air scatters blue light more than red.",
)
SAMPLES = (
    Sample("one turn", _turns("What is the capital of France?"), "Paris."),
    Sample(
        "several turns",
        _turns("Hi! I'm looking for a cake recipe.", "What kind of cake?", "Chocolate cake."),
        "Mix flour, cocoa, sugar, eggs and butter; bake for 30 minutes.",
    ),
    Sample(
        "lines and signs",
        _turns("  Sum this up:\n\n\t1. Äpfel & Öl — 5 €\n\t2. 日本語 🙂 {{ braces }} <b>bold</b>\n"),
        "Two items:\n\n* apples and oil\n* Japanese text",
    ),
    SYSTEM_SAMPLE,
)
