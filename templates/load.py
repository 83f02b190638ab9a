"""Where a chat template comes from, and its head, which has to fit the tokenizer."""

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.errors import ModelError
from kto_release.templates.moment import moment_of
from kto_release.templates.samples import SAMPLES, Message
from kto_release.templates.sandbox import Asked, Text, refuse_unsafe, render_apart

BUILT_IN = ("chatml", "llama3", "mistral", "tulu_v2", "zephyr")
BASE = "base"
HEAD = "{{ bos_token }}"
"""First line of every built-in template, replaced by the head that fits the tokenizer."""
NO_HEAD = "{{ '' }}"
SPACED_HEAD = "{{ bos_token + ' ' }}"
GAP = "{%- set gap = '' %}"
"""What stands between an end-of-turn token and the next turn, in templates that put nothing else there."""
SPACED_GAP = "{%- set gap = ' ' %}"
MARK = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")


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
        """Whether it says which text is the model's, so that a mask can be made from it."""
        return MARK.search(self.source) is not None


def make_template(name: str, source: str) -> Template:
    """A template of this source, with LF line ends."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    return Template(name, source, hashlib.sha256(source.encode()).hexdigest())


def load_template(name: str, tokenizer: Any) -> Template:
    """The template `name`: a built-in one, "base" (the tokenizer's own), or a .jinja file.

    The head of a built-in one is chosen so that the ids are those of the bare text with the tokenizer's own BOS: a
    SentencePiece tokenizer such as Mistral's may need a space between, a byte-level BPE none; where the tokenizer has
    no BOS, or the template's first token is it already, none is printed. One from elsewhere is first rendered in a
    child process. Raises `ModelError` with the choices, or with what is wrong with the template.
    """
    if name in BUILT_IN:
        source = resources.files("kto_release.templates").joinpath(f"{name}.jinja").read_text(encoding="utf-8")
        return make_template(name, _fitted(source, tokenizer))
    template = make_template(BASE, own_source(tokenizer)) if name == BASE else _from_file(name)
    refuse_unsafe(template.source, special_tokens(tokenizer))
    return template


def _from_file(name: str) -> Template:
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


def set_template(tokenizer: Any, template: Template) -> None:
    """Put the template into the tokenizer, as `save_pretrained` writes it and `render` uses it."""
    tokenizer.chat_template = template.source


def own_source(tokenizer: Any) -> str:
    """The template in the tokenizer. Raises `ModelError` where there is none."""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:
        raise ModelError(
            "the model's tokenizer has no chat template",
            expected=f"model.template: one of {', '.join(BUILT_IN)}, or a .jinja file",
        ) from None


def special_tokens(tokenizer: Any) -> dict[str, str]:
    """The special tokens that a template can print, by name."""
    return {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a BOS token before a text by itself."""
    if tokenizer.bos_token_id is None:
        return False
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def _fitted(source: str, tokenizer: Any) -> str:
    if tokenizer.eos_token is None and "eos_token" in source:
        raise ModelError("this chat template ends an answer with the EOS token, and the tokenizer has none")
    without = source.replace(HEAD, NO_HEAD, 1)
    if tokenizer.bos_token is None:
        return without
    bare = prompt_text(tokenizer, SAMPLES[0].prompt, without)
    if bare.startswith(tokenizer.bos_token):
        return without
    spaced = source.replace(HEAD, SPACED_HEAD, 1).replace(GAP, SPACED_GAP, 1)
    if adds_bos(tokenizer):
        expected = tokenizer(bare)["input_ids"]
        for candidate in (source, spaced):
            text = prompt_text(tokenizer, SAMPLES[0].prompt, candidate)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            # A tokenizer may add an EOS too; that is the contract's business, not the head's.
            if ids == expected[: len(ids)]:
                return candidate
    return source


def printed(
    tokenizer: Any,
    messages: Sequence[Message],
    source: str | None = None,
    *,
    prompt: bool = True,
    tools: Sequence[Any] | None = None,
) -> Text:
    """A conversation by `source`, or by the tokenizer's own template. Raises `ModelError` as `render_apart` does."""
    return printed_each(tokenizer, [Asked(messages, prompt, tools)], source)[0]


def printed_each(tokenizer: Any, conversations: Sequence[Asked], source: str | None = None) -> list[Text]:
    """Many conversations by `source`, or by the tokenizer's own template."""
    source = own_source(tokenizer) if source is None else source
    return render_apart(source, special_tokens(tokenizer), conversations, moment_of(tokenizer))


def prompt_text(tokenizer: Any, messages: Sequence[Message], source: str | None = None, *, prompt: bool = True) -> str:
    """The text of a conversation. Raises `ModelError` where the template refuses it, or breaks its limits."""
    found = printed(tokenizer, messages, source, prompt=prompt)
    if found.text is None:
        raise ModelError(f"the chat template refuses a conversation: {found.refused}")
    return found.text
