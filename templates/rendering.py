"""Messages to token ids, one conversation or many rows of feedback."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kto_release.errors import ModelError
from kto_release.templates.cutting import MERGED, Conversation, cut_answer, end_token, special_pattern
from kto_release.templates.load import own_source, printed_each, special_tokens
from kto_release.templates.prints import Prints, prints
from kto_release.templates.samples import Message
from kto_release.templates.sandbox import Asked, Text, refuse_unsafe

ROLES = ("system", "user", "assistant", "tool")
NEXT = {"": ("user",), "user": ("assistant",), "assistant": ("user",), "tool": ("assistant",)}
"""Who may speak after whom."""


class Rendered(NamedTuple):
    """One piece of feedback as token ids."""

    prompt_ids: list[int]
    completion_ids: list[int] | None
    """The answer with its end-of-turn token, once, as the template puts it; None where it can't be trained on."""
    problem: str | None = None
    """Why there is no completion: MERGED, CHANGED, SPECIAL, REFUSED, THOUGHTLESS or one of UNPRINTED."""
    detail: str | None = None
    """What the template says where it refuses."""
    note: str | None = None
    """What to know of one that is trained on: EMPTY_THOUGHT or PAST_THOUGHT."""


def role_problem(messages: Sequence[Message], *, prompt: bool) -> str | None:
    """What is wrong with who speaks when, whatever the template accepts; None where nothing is.

    A system message may come first; then user and assistant take turns, the user first, and last in a prompt. An
    assistant that calls tools is followed by their results, and then goes on.
    """
    for message in messages:
        if not (isinstance(message.get("role"), str) and isinstance(message.get("content"), str)):
            return f"not a message with role and content, both text: {dict(message)!r}"
        if message["role"] not in ROLES:
            return f"unknown role {message['role']!r}"
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns:
        return "nobody speaks"
    calls, before = 0, ""
    for message in turns:
        role = message["role"]
        if role == "tool" and calls:
            calls, before = calls - 1, role
            continue
        if calls:
            return f"a call of a tool has no result before {role} speaks"
        if role not in NEXT[before]:
            return "the human must speak first" if not before else f"{role} speaks where it is not their turn"
        calls, before = len(message.get("tool_calls") or ()), role
    if prompt and before == "tool" and calls:
        return "a call of a tool has no result"
    return "a prompt must end with the user's message" if prompt and before not in ("user", "tool") else None


def render_text(
    tokenizer: Any, messages: Sequence[Message], *, prompt: bool, variables: Mapping[str, Any] | None = None
) -> str:
    """The text of a conversation; `prompt` adds what makes the model answer, `variables` are further ones for the
    template, such as enable_thinking.

    Raises `ModelError` where roles don't alternate, the template refuses the conversation, or there is no template.
    """
    _check_template(tokenizer)
    text, problem = _rendered(tokenizer, messages, None, prompt=prompt, variables=variables)
    if text is None:
        raise ModelError(
            f"this conversation can't be rendered: {problem}",
            expected="a system message or none, then user and assistant in turn, the user first",
        )
    return text


def _rendered(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Any] | None,
    *,
    prompt: bool,
    variables: Mapping[str, Any] | None = None,
) -> tuple[str | None, str | None]:
    """The text, or why there is none."""
    problem = role_problem(messages, prompt=prompt)
    if problem is not None:
        return None, problem
    return _told(printed_each(tokenizer, [Asked(messages, prompt, tools, variables=variables)])[0])


def _told(found: Text) -> tuple[str | None, str | None]:
    return found.text, None if found.text is not None else f"the chat template says: {found.refused}"


def _check_template(tokenizer: Any) -> None:
    refuse_unsafe(own_source(tokenizer), special_tokens(tokenizer))


def render(
    tokenizer: Any, messages: Sequence[Message], *, prompt: bool, variables: Mapping[str, Any] | None = None
) -> list[int]:
    """The token ids of a conversation; `prompt` adds what makes the model answer, `variables` go to the template.

    The template prints BOS where the model uses one, so the tokenizer adds nothing here. Raises `ModelError` as
    `render_text` does.
    """
    text = render_text(tokenizer, messages, prompt=prompt, variables=variables)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render_feedback(tokenizer: Any, rows: Sequence[tuple[Sequence[Message], str] | Conversation]) -> list[Rendered]:
    """The ids of many (prompt messages, answer) or conversations, in order; each distinct prompt is rendered once.

    Prompt and answer are tokenized as a whole and split at the prompt's length, because an answer by itself gets other
    tokens (Mistral's "▁What" for "What"). Where the prompt's ids are not a prefix of the whole's, or the answer can't
    be told apart from the template, or the template does not print what belongs to the conversation, that row alone has
    no completion and says why.
    """
    told = [row if isinstance(row, Conversation) else Conversation(row[0], _plain_answer(row[1])) for row in rows]
    ways = None if all(row.is_plain for row in told) else prints(tokenizer)
    if ways is not None:
        told = [_as_told(row, ways) for row in told]
    prompts, prompt_of_row = _distinct(told)
    prompt_texts = _texts(tokenizer, [(row.prompt, row.tools) for row in prompts], prompt=True)
    wholes = _texts(tokenizer, [([*row.prompt, row.answer], row.tools) for row in told], prompt=False)
    special = special_pattern(tokenizer)
    end = end_token(tokenizer, special) if ways else None
    cuts = [
        cut_answer(row, prompt_texts[number], whole, special, ways, end)
        for number, whole, row in zip(prompt_of_row, wholes, told, strict=True)
    ]
    prompt_ids = _ids(tokenizer, [text or "" for text, _ in prompt_texts])
    whole_ids = iter(_ids(tokenizer, [cut.text for cut in cuts if cut.problem is None]))
    return [
        Rendered(prompt_ids[number], None, cut.problem, cut.detail)
        if cut.problem
        else _split(prompt_ids[number], next(whole_ids), cut.note)
        for number, cut in zip(prompt_of_row, cuts, strict=True)
    ]


def _plain_answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _as_told(row: Conversation, ways: Prints) -> Conversation:
    """The answer's thoughts where the template looks for them: under their key, or as <think> in the text."""
    thought = row.answer.get("reasoning_content")
    if not thought or ways.reasoning or not ways.think:
        return row
    rest = {key: value for key, value in row.answer.items() if key != "reasoning_content"}
    return row._replace(answer={**rest, "content": f"<think>\n{thought}\n</think>\n\n{row.answer['content']}"})


def _split(prompt: list[int], whole: list[int], note: str | None) -> Rendered:
    if len(whole) <= len(prompt) or whole[: len(prompt)] != prompt:
        return Rendered(prompt, None, MERGED)
    return Rendered(prompt, whole[len(prompt) :], note=note)


def _distinct(rows: Sequence[Conversation]) -> tuple[list[Conversation], list[int]]:
    """One row of each distinct prompt, and for each given one the number of its own."""
    numbers: dict[Any, int] = {}
    distinct: list[Conversation] = []
    places = []
    for row in rows:
        key: Any = tuple((message.get("role"), message.get("content")) for message in row.prompt)
        if row.tools or any(len(message) > 2 for message in row.prompt):
            key = json.dumps([list(row.prompt), row.tools], sort_keys=True, default=str)
        place = numbers.setdefault(key, len(distinct))
        if place == len(distinct):
            distinct.append(row)
        places.append(place)
    return distinct, places


def _texts(
    tokenizer: Any, conversations: Sequence[tuple[Sequence[Message], Sequence[Any] | None]], *, prompt: bool
) -> list[tuple[str | None, str | None]]:
    """The texts of many conversations; None, and why, where one is refused."""
    if not conversations:
        return []
    _check_template(tokenizer)
    problems = [role_problem(messages, prompt=prompt) for messages, _ in conversations]
    asked = [
        Asked(messages, prompt, tools)
        for (messages, tools), problem in zip(conversations, problems, strict=True)
        if problem is None
    ]
    found = iter(printed_each(tokenizer, asked))
    return [_told(next(found)) if problem is None else (None, problem) for problem in problems]


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids
