"""What a model thinks before it answers: told apart from the answer, which is what people and judges read."""

import re
from typing import Any, NamedTuple

MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""What opens and closes thoughts: Qwen, DeepSeek and most others; Seed; Magistral; Kimi; OpenThoughts; gpt-oss."""
CLOSES = dict(MARKS)
OPENINGS = {end: start for start, end in MARKS}
LEADING = re.compile(r"\A\s*(" + "|".join(re.escape(mark) for mark in CLOSES) + ")")
CLOSING = re.compile("|".join(re.escape(mark) for mark in OPENINGS))
BLOCK = re.compile(
    "|".join(rf"^[ \t]*{re.escape(start)}(.*?){re.escape(end)}" for start, end in MARKS), re.MULTILINE | re.DOTALL
)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
AROUND = re.compile(r"\A<\|begin_of_solution\|>\s*|\s*<\|end_of_solution\|>\Z")
QUOTES = "`'\""
TAIL = 32
"""Tokens at a prompt's end among which an opening mark is looked for."""


class Said(NamedTuple):
    """An answer without the thoughts around it."""

    text: str
    """As it was, where there were no thoughts."""
    thoughts: str | None
    """What was thought; null where there were no marks."""
    closed: bool = True
    """False where the thoughts never end: then there is no answer, and the text is empty."""


def without_thoughts(text: str, *, opened: bool = False) -> Said:
    """Tell answer and thoughts apart.

    Thoughts stand between two marks, at the beginning or where a line begins; a closing mark alone ends what the prompt
    had opened. Marks in quotes or in a block of code are text. `opened` says that the prompt itself opened them.
    """
    thoughts, rest = list[str](), text
    end = _lonely_end(text, opened=opened)
    if opened and end is None:
        return Said("", text.strip(), closed=False)
    if end is not None:
        thoughts.append(text[: end.start()])
        rest = text[end.end() :]
    while begun := LEADING.match(rest):
        inside, mark, rest = rest[begun.end() :].partition(CLOSES[begun[1]])
        thoughts.append(inside)
        if not mark:
            return Said("", _joined(thoughts), closed=False)
    fences = _fences(rest)
    for block in reversed([*BLOCK.finditer(rest)]):
        if not _within(block.start(), fences):
            thoughts.append(next(inside for inside in block.groups() if inside is not None))
            rest = rest[: block.start()] + rest[block.end() :]
    return Said(AROUND.sub("", rest.strip()), _joined(thoughts)) if thoughts else Said(text, None)


def answer_of(tokenizer: Any, ids: list[int], prompt_ids: list[int]) -> Said:
    """What the ids that followed a prompt say, without special tokens and without thoughts.

    The marks are special tokens to some tokenizers, so they are looked for before those are left out.
    """
    tail = tokenizer.decode(prompt_ids[-TAIL:], skip_special_tokens=False).rstrip()
    said = without_thoughts(tokenizer.decode(ids, skip_special_tokens=False), opened=tail.endswith(tuple(CLOSES)))
    if said.thoughts is None:
        return Said(tokenizer.decode(ids, skip_special_tokens=True), None)
    text = said.text
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return said._replace(text=text)


def _lonely_end(text: str, *, opened: bool) -> re.Match[str] | None:
    """The first closing mark before which nothing opens."""
    fences = [] if opened else _fences(text)
    for end in CLOSING.finditer(text):
        if not opened and OPENINGS[end[0]] in text[: end.start()]:
            return None
        quoted = text[end.start() - 1 : end.start()] in tuple(QUOTES) or text[end.end() : end.end() + 1] in tuple(
            QUOTES
        )
        if opened or not (quoted or _within(end.start(), fences)):
            return end
    return None


def _fences(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in FENCE.finditer(text)]


def _within(place: int, spans: list[tuple[int, int]]) -> bool:
    return any(start <= place < end for start, end in spans)


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(thought.strip() for thought in thoughts)
