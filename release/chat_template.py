"""The chat template of a release: proved, written where every reader looks for it, and replayed by whoever receives it.

The rules themselves are `templates/contract.py`, because training keeps them too and never imports the release.

    chat_template.jinja            without {% generation %} tags, which readers other than transformers refuse
    tokenizer_config.json          the same text as "chat_template", for older readers
    chat_template.training.jinja   the same with the tags, for trainers
    template_test.json             conversations with the token ids that they must give
"""

import difflib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.errors import ModelError, ReleaseError
from kto_release.files import write_atomically
from kto_release.records import IterationRecord
from kto_release.release.readers import read_object, tokenizer_for_all_readers
from kto_release.release.replay import PUBLISHED, TEST, TRAINING, TemplateTest, conversations, ids_by, replay
from kto_release.templates import BASE, Template, load_template, make_template, set_template
from kto_release.templates.contract import check_contract, difference
from kto_release.templates.load import MARK
from kto_release.templates.moment import KEY, moment_of
from kto_release.templates.samples import SAMPLES
from kto_release.templates.sandbox import Asked, render_apart
from kto_release.templates.saving import check_reload

__all__ = ["Choice", "publishable", "published_template", "replay", "write_template"]

SHOWN_LINES = 12

_LINE_OF_MARK = re.compile(rf"(?m)^[ \t]*{MARK.pattern}[ \t]*\n")
_ANY_MOMENT = "2026-01-01T00:00:00"
_STAND_INS = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}


class Choice(NamedTuple):
    """The template that is published, and whether it is another one than trained with."""

    template: Template
    replaced: bool


def published_template(name: str | None, tokenizer: Any, record: IterationRecord, *, replace: bool) -> Choice:
    """The template to publish: the one in the trained model's `tokenizer`, or `name` (`release.template`).

    Raises `ReleaseError` where the tokenizer's is not the one that `record` names, or where `name` is another one and
    `replace` (--replace-template) is not given; `ModelError` where there is no such template.
    """
    trained = load_template(BASE, tokenizer)._replace(name=record.template)
    if trained.sha256 != record.template_sha256:
        raise ReleaseError(
            f"the chat template in the model of iteration {record.iteration} is not the one that it was trained with"
            f" (digest {trained.sha256[:12]}…)",
            expected=f"digest {record.template_sha256[:12]}…, as recorded",
            todo="restore chat_template.jinja in the iteration's model folder, or train again",
        )
    other = trained if name is None else load_template(name, tokenizer)
    if other.sha256 == trained.sha256:
        return Choice(trained, replaced=False)
    if not replace:
        raise ReleaseError(
            f"release.template {other.name!r} is another chat template than {trained.name!r}, which the model was"
            f" trained with:\n{_differences(tokenizer, trained, other)}",
            todo="remove release.template, or give --replace-template: the card then says so",
        )
    return Choice(other, replaced=True)


def _differences(tokenizer: Any, trained: Template, other: Template) -> str:
    """Two templates compared: the ids of a question, and the first lines that differ."""
    ids = [ids_by(tokenizer, template, SAMPLES[0].prompt, prompt=True) for template in (trained, other)]
    if ids[0] == ids[1]:
        told = "  the ids of a question are equal"
    else:
        told = "  the ids of a question, " + difference(tokenizer, ids[0] or [], ids[1] or [])
    lines = difflib.unified_diff(trained.source.splitlines(), other.source.splitlines(), lineterm="", n=0)
    return "\n".join([told, *(f"  {line}" for line in [*lines][2 : 2 + SHOWN_LINES])])


def publishable(source: str) -> str:
    """The template without {% generation %} tags, proved to render the sample conversations as before.

    Tags on lines of their own vanish with the line; elsewhere they become `{% if true %}`, which trims white space in
    the same way. Raises `ModelError` where neither renders the same.
    """
    plain = source.removesuffix("\n")  # Jinja drops one line end at the end; not every reader does
    expected = _texts(source)
    branches = MARK.sub(lambda found: _as_branch(found.group()), plain)
    for candidate in (_LINE_OF_MARK.sub("", plain), branches):
        if not MARK.search(candidate) and _texts(candidate) == expected:
            return candidate
    raise ModelError(
        "the chat template can't be published: without its {% generation %} tags it renders differently",
        todo="put each tag on a line of its own, as {%- generation %} and {%- endgeneration %}",
    )


def _as_branch(tag: str) -> str:
    return tag.replace("endgeneration", "endif") if "endgeneration" in tag else tag.replace("generation", "if true")


def _texts(source: str) -> list[str | None]:
    """The sample conversations as `source` renders them, with stand-ins for special tokens; None where it refuses."""
    asked = [Asked(m, prompt) for sample in SAMPLES for m, prompt in ((sample.prompt, True), (sample.whole, False))]
    return [found.text for found in render_apart(source, _STAND_INS, asked, moment=_ANY_MOMENT)]


def write_template(
    folder: Path, tokenizer: Any, template: Template, stops: Collection[int], base: Path | None = None
) -> None:
    """Prove the template and write it into a bundle that holds the tokenizer's other files already.

    `tokenizer` is the trained model's, and gets the template; `base` is the initial model's folder, whose tokenizer
    class is kept where it is one that other readers know. Raises `ModelError` where the contract is broken,
    `ReleaseError` where what was written does not read back.
    """
    check_contract(tokenizer, template, stops)
    published = make_template(template.name, publishable(template.source))
    check_contract(tokenizer, published, stops)
    test = TemplateTest(
        chat_template_sha256=published.sha256,
        moment=moment_of(tokenizer),
        conversations=conversations(tokenizer, published),
    )
    if template.marked:
        marked = conversations(tokenizer, template)
        if marked != test.conversations:
            raise ModelError(
                "the chat template gives other ids without its {% generation %} tags", todo="mend the file"
            )
        write_atomically(folder / TRAINING, template.source)
    else:
        (folder / TRAINING).unlink(missing_ok=True)
    set_template(tokenizer, published)
    write_atomically(folder / PUBLISHED, published.source)
    _write_config(folder / "tokenizer_config.json", published.source, test.moment, base)
    write_atomically(folder / TEST, test.model_dump_json(indent=1) + "\n")
    replay(folder)
    check_reload(tokenizer, folder)


def _write_config(path: Path, source: str, moment: str | None, base: Path | None) -> None:
    """tokenizer_config.json with the template, as every reader of it expects it."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path.name} can't be read: {error}", todo="restore the model's tokenizer files") from None
    kept = tokenizer_for_all_readers(plain, read_object(base / path.name) if base else {})
    kept = {key: value for key, value in kept.items() if key != KEY} | ({KEY: moment} if moment else {})
    write_atomically(path, json.dumps({**kept, "chat_template": source}, indent=2, ensure_ascii=False) + "\n")
