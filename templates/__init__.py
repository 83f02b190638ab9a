"""Chat templates, and `render`: the only place that turns messages into token ids.

A built-in template is a .jinja file here, with `{% generation %}` marks around what the model says and
`{{ bos_token }}` as its head, which `load_template` adapts to the tokenizer.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.errors import ModelError

Message = Mapping[str, str]
"""A turn of a conversation: role (system, user or assistant) and content."""

BUILT_IN = ("chatml", "llama3", "mistral", "tulu_v2", "zephyr")
BASE = "base"
HEAD = "{{ bos_token }}"
"""First line of every built-in template; `load_template` replaces it by one of the heads below."""
HEADS = ("{{ bos_token }}", "{{ bos_token + ' ' }}")
NO_HEAD = "{{ '' }}"

MERGED = "answer merges with prompt"
CHANGED = "template changes the answer"
SPECIAL = "special token in the answer"
REFUSED = "template refuses the prompt"

_PROBE = ({"role": "user", "content": "Hi! How are you?"},)


class Template(NamedTuple):
    """A chat template as it goes into a tokenizer."""

    name: str
    """A built-in name, "base", or a file's name without its suffix."""
    source: str
    """Jinja, LF line ends, with {% generation %} marks where it has them."""
    sha256: str
    """Digest of the source: two templates with equal digests are the same."""

    @property
    def marked(self) -> bool:
        """Whether it says what the model says, so that a mask can be made from it."""
        return re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", self.source) is not None


class Rendered(NamedTuple):
    """One piece of feedback as token ids."""

    prompt_ids: list[int]
    completion_ids: list[int] | None
    """The answer with its end-of-turn token, once, as the template puts it; None where it can't be trained on."""
    problem: str | None = None
    """Why there is no completion: MERGED, CHANGED, SPECIAL or REFUSED."""


def load_template(name: str, tokenizer: Any) -> Template:
    """The template `name`: a built-in one, "base" (the tokenizer's own), or a .jinja file.

    The head of a built-in one is chosen so that the ids are those of the bare text with the tokenizer's own BOS: a
    SentencePiece tokenizer such as Mistral's needs a space between, a byte-level BPE none; where the tokenizer has no
    BOS, or the template's first token is it already, none is printed. Raises `ModelError` with the choices.
    """
    if name in BUILT_IN:
        source = resources.files("kto_release.templates").joinpath(f"{name}.jinja").read_text(encoding="utf-8")
        return make_template(name, _with_head(source, tokenizer))
    if name == BASE:
        return make_template(BASE, _own_template(tokenizer))
    path = Path(name)
    if not path.is_file():
        raise ModelError(
            f"no such chat template: {name!r}",
            expected=f"{', '.join(BUILT_IN)}, base (the model's own), or a .jinja file",
        )
    try:
        return make_template(path.stem, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ModelError(f"the chat template {path.name!r} is not text", expected="Jinja in UTF-8") from None


def make_template(name: str, source: str) -> Template:
    """A template of this source, with LF line ends."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    return Template(name, source, hashlib.sha256(source.encode()).hexdigest())


def set_template(tokenizer: Any, template: Template) -> None:
    """Put the template into the tokenizer."""
    tokenizer.chat_template = template.source


def _own_template(tokenizer: Any) -> str:
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:
        raise ModelError(
            "the model's tokenizer has no chat template of its own",
            expected=f"one of {', '.join(BUILT_IN)}, or a .jinja file",
            todo="set model.template in the recipe",
        ) from None


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a BOS token before a text by itself."""
    if tokenizer.bos_token_id is None:
        return False
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def _with_head(source: str, tokenizer: Any) -> str:
    if tokenizer.bos_token is None:
        return source.replace(HEAD, NO_HEAD, 1)
    bare = _text(tokenizer, _PROBE, source.replace(HEAD, NO_HEAD, 1))
    if bare.startswith(tokenizer.bos_token):
        return source.replace(HEAD, NO_HEAD, 1)
    if adds_bos(tokenizer):
        expected = tokenizer(bare)["input_ids"]
        for head in HEADS:
            text = _text(tokenizer, _PROBE, source.replace(HEAD, head, 1))
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            # A tokenizer may add an EOS too; that is the contract's business, not the head's.
            if ids == expected[: len(ids)]:
                return source.replace(HEAD, head, 1)
    return source


def _text(tokenizer: Any, messages: Sequence[Message], source: str | None = None, *, prompt: bool = True) -> str:
    text = tokenizer.apply_chat_template(
        list(messages), chat_template=source, tokenize=False, add_generation_prompt=prompt
    )
    return str(text)


def render_text(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    """The text of a conversation; `prompt` adds what makes the model answer.

    Raises `ModelError` where the template refuses the conversation, or there is no template.
    """
    from jinja2 import TemplateError

    _own_template(tokenizer)
    for message in messages:
        if not (isinstance(message.get("role"), str) and isinstance(message.get("content"), str)):
            raise ModelError(f"not a message: {dict(message)!r}", expected="role and content, both text")
    try:
        return _text(tokenizer, messages, prompt=prompt)
    except (TemplateError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"the chat template refuses this conversation: {str(error).splitlines()[0]}",
            expected="optionally a system message, then user and assistant in turn, the user first",
        ) from None


def render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> list[int]:
    """The token ids of a conversation; `prompt` adds what makes the model answer.

    The template prints BOS where the model uses one, so the tokenizer adds nothing here. Raises `ModelError` as
    `render_text` does.
    """
    text = render_text(tokenizer, messages, prompt=prompt)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def render_feedback(tokenizer: Any, rows: Sequence[tuple[Sequence[Message], str]]) -> list[Rendered]:
    """The ids of many (prompt messages, answer), in order.

    Prompt and answer are tokenized as a whole and split at the prompt's length, because an answer by itself gets other
    tokens (Mistral's "▁What" for "What"). Where the prompt's ids are not a prefix of the whole's, or the answer can't
    be told apart from the template, that row alone has no completion and says why.
    """
    numbers: dict[tuple[tuple[str, str], ...], int] = {}
    prompts: list[Sequence[Message]] = []
    number_of_row = []
    for messages, _ in rows:
        key = tuple((message["role"], message["content"]) for message in messages)
        number = numbers.setdefault(key, len(prompts))
        if number == len(prompts):
            prompts.append(messages)
        number_of_row.append(number)
    prompt_texts = _texts(tokenizer, prompts, prompt=True)
    whole_texts = _texts(
        tokenizer,
        [[*messages, {"role": "assistant", "content": answer}] for messages, answer in rows],
        prompt=False,
    )
    special = special_pattern(tokenizer)
    cut = [
        _cut(prompt_texts[number], whole, answer, special)
        for number, whole, (_, answer) in zip(number_of_row, whole_texts, rows, strict=True)
    ]
    prompt_ids = _ids(tokenizer, [text or "" for text in prompt_texts])
    whole_ids = iter(_ids(tokenizer, [text for text, problem in cut if problem is None]))
    found = []
    for number, (_, problem) in zip(number_of_row, cut, strict=True):
        prompt = prompt_ids[number]
        if problem is not None:
            found.append(Rendered(prompt, None, problem))
            continue
        whole = next(whole_ids)
        if len(whole) <= len(prompt) or whole[: len(prompt)] != prompt:
            found.append(Rendered(prompt, None, MERGED))
        else:
            found.append(Rendered(prompt, whole[len(prompt) :]))
    return found


def _texts(tokenizer: Any, conversations: Sequence[Sequence[Message]], *, prompt: bool) -> list[str | None]:
    """The texts of many conversations; None where the template refuses one."""
    from jinja2 import TemplateError

    if not conversations:
        return []
    _own_template(tokenizer)
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
    tokens.update(tokenizer.all_special_tokens)
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or r"(?!)")


def _cut(prompt: str | None, whole: str | None, answer: str, special: re.Pattern[str]) -> tuple[str, str | None]:
    """The text of prompt and answer up to the end-of-turn token, or a problem.

    What a template prints behind that token (a line end; Phi-3's also an EOS) the model is never asked for.
    """
    if prompt is None or whole is None:
        return "", REFUSED
    if special.search(answer):
        return "", SPECIAL
    if not whole.startswith(prompt):
        return "", MERGED
    said = answer.strip()
    start = whole.find(said, len(prompt))
    if start < 0:
        return "", CHANGED
    end = special.search(whole, start + len(said))
    return (whole[: end.end()] if end else whole), None


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def eos_ids(folder: Path) -> list[int]:
    """The tokens at which generation with the model in `folder` stops, sorted.

    From generation_config.json, else config.json. Raises `ModelError` where neither says.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            plain = json.loads(path.read_text(encoding="utf-8"))
            value = plain.get("eos_token_id")
            if value is None:
                value = (plain.get("text_config") or {}).get("eos_token_id")
            if value is not None:
                return sorted({value} if isinstance(value, int) else set(value))
    raise ModelError(
        f"{folder.name!r} does not say at which token an answer ends",
        expected="eos_token_id in generation_config.json",
    )
