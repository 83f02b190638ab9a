"""The moment at which a template that prints the date is rendered: one for a run, kept with its tokenizer.

Some models' own templates (Llama 3.x, gpt-oss, Granite) print today's date. The ids of a prompt would then be others on
each day: of training that goes on tomorrow, of a release that is checked next week. So a run records a moment, and
training, evaluation, publishing and `verify` all render as of then. Whoever uses the model sees their own day.
"""

from typing import Any

CLOCK = "strftime_now"
"""The function by which a template asks for the date; transformers offers no other."""
KEY = "template_moment"
"""In tokenizer_config.json: ISO 8601 without a time zone (it is UTC's), as the template's clock says it."""


def reads_clock(source: str) -> bool:
    """Whether a template asks for the date."""
    return CLOCK in source


def moment_of(tokenizer: Any) -> str | None:
    """The moment that the tokenizer's template is rendered at; None: now."""
    moment = tokenizer.init_kwargs.get(KEY)
    return moment if isinstance(moment, str) else None


def set_moment(tokenizer: Any, moment: str | None) -> None:
    """Render the tokenizer's template as of `moment` from now on; it is saved with the tokenizer."""
    if moment is None:
        tokenizer.init_kwargs.pop(KEY, None)
    else:
        tokenizer.init_kwargs[KEY] = moment


def in_words(moment: str) -> str:
    """A moment for people: 2026-11-25 09:30 UTC."""
    return f"{moment[:16].replace('T', ' ')} UTC"
