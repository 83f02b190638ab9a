"""Where the answer of a rendered conversation begins and ends, and why there may be none to train on."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from kto_release.templates.load import prompt_text
from kto_release.templates.prints import UNPRINTED, Prints
from kto_release.templates.samples import SAMPLES, Message

MERGED = "answer merges with prompt"
CHANGED = "template changes the answer"
SPECIAL = "special token in the answer"
REFUSED = "template refuses the prompt"
THOUGHTLESS = "template leaves out the answer's thoughts"
EMPTY_THOUGHT = "the template opens a thought before every answer; where the answer has none, an empty one is trained"
PAST_THOUGHT = "the template leaves out the thoughts of earlier turns"
INLINE_THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)


class Conversation(NamedTuple):
    """What is rendered for one piece of feedback."""

    prompt: Sequence[Message]
    answer: Message
    tools: Sequence[Any] | None = None
    """The tools that are offered, as chat templates take them."""

    @property
    def is_plain(self) -> bool:
        """Whether it is texts alone: no tools, calls, results or thoughts under keys of their own."""
        return (
            not self.tools
            and len(self.answer) == 2
            and all(len(turn) == 2 and turn["role"] != "tool" for turn in self.prompt)
        )


class Cut(NamedTuple):
    """The text of prompt and answer up to the end-of-turn token, or a problem."""

    text: str
    problem: str | None = None
    detail: str | None = None
    note: str | None = None


def special_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Finds every text that the tokenizer turns into a special token."""
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or r"(?!)")


def end_token(tokenizer: Any, special: re.Pattern[str]) -> str | None:
    """The special token that ends a plain answer; None where none does."""
    sample = SAMPLES[0]
    text = prompt_text(tokenizer, sample.whole, prompt=False)
    found = special.search(text, text.rfind(sample.answer) + len(sample.answer))
    return found[0] if found else None


def cut_answer(
    row: Conversation,
    prompt: tuple[str | None, str | None],
    whole: tuple[str | None, str | None],
    special: re.Pattern[str],
    ways: Prints | None,
    end: str | None,
) -> Cut:
    """What a template prints behind the end-of-turn token (a line end; Phi-3's an EOS too) the model never says.

    `prompt` and `whole` are texts, or None with the reason; `ways` is what the template prints, where the row is more
    than texts; `end` is what ends an answer that calls tools: such answers hold special tokens of the template's own.
    """
    problem = _unprinted(row, ways) if ways else None
    if problem is not None:
        return Cut("", problem)
    if prompt[0] is None or whole[0] is None:
        return Cut("", REFUSED, prompt[1] or whole[1])
    thought, said, calls = _pieces(row.answer)
    if any(special.search(text) for text in (thought, said, *calls)):
        return Cut("", SPECIAL)
    if not whole[0].startswith(prompt[0]):
        return Cut("", MERGED)
    place = len(prompt[0])
    for piece in (thought, said, *calls):
        start = whole[0].find(piece, place)
        if start < 0:
            return Cut("", THOUGHTLESS if piece is thought else CHANGED)
        place = start + len(piece)
    last = whole[0].find(end, place) if calls and end else -1
    if last >= 0 and end:
        return Cut(whole[0][: last + len(end)], note=_note(row, prompt[0], thought))
    found = special.search(whole[0], place)
    return Cut(whole[0][: found.end()] if found else whole[0], note=_note(row, prompt[0], thought))


def _pieces(answer: Message) -> tuple[str, str, list[str]]:
    """The thoughts, the text, and the names of the tools called, in the order in which they are rendered."""
    text = str(answer["content"])
    thought = str(answer.get("reasoning_content") or "").strip()
    inline = None if thought else INLINE_THOUGHT.match(text)
    if inline:
        thought, text = inline[1].strip(), text[inline.end() :]
    return thought, text.strip(), [str(call["function"]["name"]) for call in answer.get("tool_calls") or ()]


def _unprinted(row: Conversation, ways: Prints) -> str | None:
    """What belongs to the conversation and is not printed by the template."""
    called = any("tool_calls" in turn for turn in (*row.prompt, row.answer))
    answered = any(turn["role"] == "tool" for turn in row.prompt)
    wants = {
        "tools": bool(row.tools),
        "calls": called,
        "results": answered,
        "reasoning": "reasoning_content" in row.answer,
    }
    return next((UNPRINTED[name] for name, wanted in wants.items() if wanted and not getattr(ways, name)), None)


def _note(row: Conversation, prompt: str, thought: str) -> str | None:
    if not thought and prompt.rstrip().endswith("<think>"):
        return EMPTY_THOUGHT
    past = [_pieces(turn)[0] for turn in row.prompt if turn["role"] == "assistant"]
    return PAST_THOUGHT if any(text and text not in prompt for text in past) else None
