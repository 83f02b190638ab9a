"""`template_test.json`: conversations with the token ids that a release's chat template must give, and their replay."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kto_release.errors import ModelError, ReleaseError
from kto_release.models import LocalModel, load_tokenizer
from kto_release.templates import BASE, Template, load_template, make_template, render, set_template
from kto_release.templates.contract import difference
from kto_release.templates.load import MARK
from kto_release.templates.moment import set_moment
from kto_release.templates.samples import SAMPLES

PUBLISHED = "chat_template.jinja"
TRAINING = "chat_template.training.jinja"
TEST = "template_test.json"


class Conversation(BaseModel):
    """A conversation, and the token ids that it must give."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    messages: list[dict[str, str]]
    add_generation_prompt: bool
    ids: list[int] | None
    """Null where the template must refuse it."""


class TemplateTest(BaseModel):
    """`template_test.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    about: str = (
        "apply_chat_template(messages, add_generation_prompt=…) must give these ids; kto-release verify replays"
    )
    chat_template_sha256: str
    """Digest of chat_template.jinja."""
    moment: str | None = None
    """When the run began, in UTC: a template that prints the date is rendered as of then; null: it prints none."""
    conversations: list[Conversation]


def ids_by(tokenizer: Any, template: Template, messages: Sequence[Any], *, prompt: bool) -> list[int] | None:
    """The ids by this template; None where it refuses the conversation. The tokenizer's own is left as it was."""
    own = tokenizer.chat_template
    set_template(tokenizer, template)
    try:
        return render(tokenizer, messages, prompt=prompt)
    except ModelError:
        return None
    finally:
        tokenizer.chat_template = own


def conversations(tokenizer: Any, template: Template) -> list[Conversation]:
    """The sample conversations with the ids that `template` gives."""
    found = []
    for sample in SAMPLES:
        for messages, prompt in ((sample.prompt, True), (sample.whole, False)):
            found.append(
                Conversation(
                    name=sample.name,
                    messages=[dict(message) for message in messages],
                    add_generation_prompt=prompt,
                    ids=ids_by(tokenizer, template, messages, prompt=prompt),
                )
            )
    return found


def replay(folder: Path) -> int:
    """Make the conversations of a release again with its own tokenizer; how many there are.

    Raises `ReleaseError` with everything that is not as recorded: ids, the template's places, its line ends and marks.
    """
    test = _read_test(folder / TEST)
    sources = {name: _read_source(folder / name) for name in (PUBLISHED, TRAINING) if (folder / name).exists()}
    problems = [*_misplaced(folder, test, sources), *_too_few(test)]
    if not problems:
        tokenizer = load_tokenizer(LocalModel(folder, folder.name, None, None))
        if load_template(BASE, tokenizer).source != sources[PUBLISHED]:
            problems.append(f"transformers loads another template than {PUBLISHED}")
        set_moment(tokenizer, test.moment)
        for name, source in sources.items():
            problems += _replayed(tokenizer, make_template(name, source), test)
    if problems:
        raise ReleaseError(
            "the chat template of this release is not what was proved:\n" + "\n".join(f"  - {p}" for p in problems),
            todo="don't use it: prompts would not be what the model was trained with",
        )
    return len(test.conversations)


def _read_test(path: Path) -> TemplateTest:
    try:
        return TemplateTest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ReleaseError(f"there is no {TEST}", expected="conversations with their token ids") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ReleaseError(f"{TEST} is damaged: {where}: {first['msg']}", todo="restore the file") from None


def _read_source(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ReleaseError(f"{path.name} is not text", expected="Jinja in UTF-8") from None


def _misplaced(folder: Path, test: TemplateTest, sources: dict[str, str]) -> list[str]:
    """What is wrong with where and how the template is written."""
    source = sources.get(PUBLISHED)
    if source is None:
        return [f"there is no {PUBLISHED}"]
    problems = []
    if make_template("", source).sha256 != test.chat_template_sha256:
        problems.append(f"{PUBLISHED} is not the file that {TEST} was made with")
    if any("\r" in text for text in sources.values()):
        problems.append("a template has line ends other than LF")
    if MARK.search(source):
        problems.append(f"{PUBLISHED} has {{% generation %}} tags, which readers other than transformers refuse")
    try:
        copy = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (OSError, ValueError, AttributeError):
        copy = None
    if copy != source:
        problems.append(f"tokenizer_config.json holds another chat_template than {PUBLISHED}")
    return problems


def _too_few(test: TemplateTest) -> Iterator[str]:
    """A test that proves nothing: conversations left out, or all of them to be refused."""
    named = {(one.name, one.add_generation_prompt) for one in test.conversations}
    absent = [sample.name for sample in SAMPLES for prompt in (True, False) if (sample.name, prompt) not in named]
    if absent:
        yield f"{TEST} lacks {', '.join(map(repr, dict.fromkeys(absent)))}"
    if all(one.ids is None for one in test.conversations):
        yield f"{TEST} holds no conversation that the template renders"


def _replayed(tokenizer: Any, template: Template, test: TemplateTest) -> list[str]:
    problems = []
    for conversation in test.conversations:
        prompt = conversation.add_generation_prompt
        ids = ids_by(tokenizer, template, conversation.messages, prompt=prompt)
        if ids == conversation.ids:
            continue
        what = f"{template.name}: {conversation.name!r}{' as a prompt' if prompt else ''}"
        if ids is None or conversation.ids is None:
            problems.append(f"{what} must {'be refused' if conversation.ids is None else 'not be refused'}")
        else:
            problems.append(f"{what}: {difference(tokenizer, conversation.ids, ids)}")
    return problems
