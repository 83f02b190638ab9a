"""Messages to token ids, one conversation or many rows of feedback."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from kto_release.errors import ModelError
from kto_release.templates.load import own_source, prompt_text, special_tokens
from kto_release.templates.samples import Message
from kto_release.templates.sandbox import refuse_unsafe

MERGED = "answer merges with prompt"
CHANGED = "template changes the answer"
SPECIAL = "special token in the answer"
REFUSED = "template refuses the prompt"
ROLES = ("system", "user", "assistant")


class Rendered(NamedTuple):
    """One piece of feedback as token ids."""

    prompt_ids: list[int]
    completion_ids: list[int] | None
    """The answer with its end-of-turn token, once, as the template puts it; None where it can't be trained on."""
    problem: str | None = None
    """Why there is no completion: MERGED, CHANGED, SPECIAL or REFUSED."""


def role_problem(messages: Sequence[Message], *, prompt: bool) -> str | None:
    """What is wrong with who speaks when, whatever the template accepts; None where nothing is.

    A system message may come first; then user and assistant take turns, the user first, and last in a prompt.
    """
    for message in messages:
        if not (isinstance(message.get("role"), str) and isinstance(message.get("content"), str)):
            return f"not a message with role and content, both text: {dict(message)!r}"
        if message["role"] not in ROLES:
            return f"unknown role {message['role']!r}"
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns:
        return "nobody speaks"
    for place, role in enumerate(turns):
        if role != ROLES[1 + place % 2]:
            return "the human must speak first" if place == 0 else f"{role} speaks where it is not their turn"
    return "a prompt must end with the user's message" if prompt and turns[-1] != "user" else None


def render_text(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    """The text of a conversation; `prompt` adds what makes the model answer.

    Raises `ModelError` where roles don't alternate, the template refuses the conversation, or there is no template.
    """
    from jinja2 import TemplateError

    _check_template(tokenizer)
    problem = role_problem(messages, prompt=prompt)
    if problem is None:
        try:
            return prompt_text(tokenizer, messages, prompt=prompt)
        except (TemplateError, ValueError, TypeError, OverflowError) as error:
            problem = f"the chat template says: {str(error).splitlines()[0]}"
    raise ModelError(
        f"this conversation can't be rendered: {problem}",
        expected="a system message or none, then user and assistant in turn, the user first",
    )


def _check_template(tokenizer: Any) -> None:
    refuse_unsafe(own_source(tokenizer), special_tokens(tokenizer))


def render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> list[int]:
    """The token ids of a conversation; `prompt` adds what makes the model answer.

    The template prints BOS where the model uses one, so the tokenizer adds nothing here. Raises `ModelError` as
    `render_text` does.
    """
    text = render_text(tokenizer, messages, prompt=prompt)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render_feedback(tokenizer: Any, rows: Sequence[tuple[Sequence[Message], str]]) -> list[Rendered]:
    """The ids of many (prompt messages, answer), in order; each distinct prompt is rendered once.

    Prompt and answer are tokenized as a whole and split at the prompt's length, because an answer by itself gets other
    tokens (Mistral's "▁What" for "What"). Where the prompt's ids are not a prefix of the whole's, or the answer can't
    be told apart from the template, that row alone has no completion and says why.
    """
    prompts, prompt_of_row = _distinct([messages for messages, _ in rows])
    prompt_texts = _texts(tokenizer, prompts, prompt=True)
    whole_texts = _texts(
        tokenizer,
        [[*messages, {"role": "assistant", "content": answer}] for messages, answer in rows],
        prompt=False,
    )
    special = special_pattern(tokenizer)
    cuts = [
        _cut(prompt_texts[number], whole, answer, special)
        for number, whole, (_, answer) in zip(prompt_of_row, whole_texts, rows, strict=True)
    ]
    prompt_ids = _ids(tokenizer, [text or "" for text in prompt_texts])
    whole_ids = iter(_ids(tokenizer, [cut.text for cut in cuts if cut.problem is None]))
    return [
        Rendered(prompt_ids[number], None, cut.problem) if cut.problem else _split(prompt_ids[number], next(whole_ids))
        for number, cut in zip(prompt_of_row, cuts, strict=True)
    ]


def _split(prompt: list[int], whole: list[int]) -> Rendered:
    if len(whole) <= len(prompt) or whole[: len(prompt)] != prompt:
        return Rendered(prompt, None, MERGED)
    return Rendered(prompt, whole[len(prompt) :])


def _distinct(prompts: Sequence[Sequence[Message]]) -> tuple[list[Sequence[Message]], list[int]]:
    """The distinct prompts, and for each given one the number of its own."""
    numbers: dict[tuple[tuple[str | None, str | None], ...], int] = {}
    distinct: list[Sequence[Message]] = []
    places = []
    for messages in prompts:
        key = tuple((message.get("role"), message.get("content")) for message in messages)
        place = numbers.setdefault(key, len(distinct))
        if place == len(distinct):
            distinct.append(messages)
        places.append(place)
    return distinct, places


def _texts(tokenizer: Any, conversations: Sequence[Sequence[Message]], *, prompt: bool) -> list[str | None]:
    """The texts of many conversations; None where one is refused."""
    from jinja2 import TemplateError

    if not conversations:
        return []
    _check_template(tokenizer)
    if all(role_problem(messages, prompt=prompt) is None for messages in conversations):
        try:
            together = tokenizer.apply_chat_template(
                [list(messages) for messages in conversations], tokenize=False, add_generation_prompt=prompt
            )
            return list(together)
        except (TemplateError, ValueError, TypeError, OverflowError):
            pass  # at least one of them is refused: find out which
    texts: list[str | None] = []
    for messages in conversations:
        try:
            texts.append(render_text(tokenizer, messages, prompt=prompt))
        except ModelError:
            texts.append(None)
    return texts


def special_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Finds every text that the tokenizer turns into a special token."""
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or r"(?!)")


class _Cut(NamedTuple):
    """The text of prompt and answer up to the end-of-turn token, or a problem."""

    text: str
    problem: str | None = None


def _cut(prompt: str | None, whole: str | None, answer: str, special: re.Pattern[str]) -> _Cut:
    """What a template prints behind the end-of-turn token (a line end; Phi-3's an EOS too) the model never says."""
    if prompt is None or whole is None:
        return _Cut("", REFUSED)
    if special.search(answer):
        return _Cut("", SPECIAL)
    if not whole.startswith(prompt):
        return _Cut("", MERGED)
    said = answer.strip()
    start = whole.find(said, len(prompt))
    if start < 0:
        return _Cut("", CHANGED)
    end = special.search(whole, start + len(said))
    return _Cut(whole[: end.end()] if end else whole)


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids
