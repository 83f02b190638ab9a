"""Chat templates, and `render`: the only place that turns messages into token ids.

A built-in template is a .jinja file here, with `{% generation %}` marks around what the model says and
`{{ bos_token }}` as its head, which `load_template` adapts to the tokenizer. `contract.check_contract` proves a
template with a tokenizer, before training and again before publishing.
"""

import json
from pathlib import Path
from typing import Any

from kto_release.errors import ModelError
from kto_release.templates.cutting import Conversation
from kto_release.templates.load import BASE, BUILT_IN, Template, adds_bos, load_template, make_template, set_template
from kto_release.templates.rendering import Rendered, render, render_feedback, render_text
from kto_release.templates.samples import Message
from kto_release.templates.saving import save_tokenizer

__all__ = [
    "BASE",
    "BUILT_IN",
    "Conversation",
    "Message",
    "Rendered",
    "Template",
    "adds_bos",
    "eos_ids",
    "load_template",
    "make_template",
    "render",
    "render_feedback",
    "render_text",
    "save_tokenizer",
    "set_template",
    "stop_ids",
]


def eos_ids(folder: Path) -> list[int]:
    """The tokens at which generation with the model in `folder` stops, sorted.

    From generation_config.json, else config.json. Raises `ModelError` where neither says.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ModelError(f"{name} of {folder.name!r} is not valid JSON") from None
        value = plain.get("eos_token_id")
        if value is None:
            value = (plain.get("text_config") or {}).get("eos_token_id")
        if value is not None:
            return sorted({value} if isinstance(value, int) else set(value))
    raise ModelError(
        f"{folder.name!r} does not say at which token an answer ends",
        expected="eos_token_id in generation_config.json",
    )


def stop_ids(tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """Where an answer ends: at the model's own EOS tokens, and at what the template ends a turn with; sorted."""
    stops = set(eos_ids(folder))
    if tokenizer.eos_token_id is not None:
        stops.add(tokenizer.eos_token_id)
    [turn] = render_feedback(tokenizer, [([{"role": "user", "content": "a"}], "a")])
    if turn.completion_ids and turn.completion_ids[-1] in tokenizer.all_special_ids:
        stops.add(turn.completion_ids[-1])
    return tuple(sorted(stops))
