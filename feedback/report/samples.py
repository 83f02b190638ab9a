"""Some rows of the feedback, exactly as they would be trained on."""

from collections.abc import Sequence
from typing import NamedTuple

from kto_release import console
from kto_release.errors import HubError, ModelError
from kto_release.feedback.report.measures import Item
from kto_release.models import load_tokenizer, locate
from kto_release.recipe import ModelSection
from kto_release.templates import Conversation, load_template, render_feedback, set_template

EACH = 5


class Trained(NamedTuple):
    """One row as text of its token ids."""

    prompt: str
    """Not trained on."""
    completion: str
    """Trained on, its end included."""


def some_of(items: Sequence[Item]) -> list[Item]:
    """The first few of each label."""
    return [item for label in (True, False) for item in [i for i in items if i.feedback.desirable is label][:EACH]]


def as_trained(model: ModelSection, items: Sequence[Item]) -> list[Trained | str] | None:
    """Each row as the recipe's tokenizer and template make it, or why it would not be trained on.

    None, with a warning, where the base model or its template can't be reached.
    """
    try:
        tokenizer = load_tokenizer(
            locate(model.base, model.revision, config_only=True), trust_remote_code=model.trust_remote_code
        )
        set_template(tokenizer, load_template(model.template, tokenizer))
    except (ModelError, HubError) as error:
        console.warn(f"rows are not shown as trained: {error.problem.splitlines()[0]}")
        return None
    rows = [Conversation(i.feedback.messages, i.feedback.answer, i.feedback.tools) for i in items]
    return [
        f"not trained on: {made.problem}"
        if made.completion_ids is None
        else Trained(tokenizer.decode(made.prompt_ids), tokenizer.decode(made.completion_ids))
        for made in render_feedback(tokenizer, rows)
    ]
