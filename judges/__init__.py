"""What compares two answers: an API, a local model, or recorded judgements. `OPENERS` is the list of them."""

from collections.abc import Callable
from typing import Any

from kto_release import recipe
from kto_release.engines import Engines
from kto_release.judges import local, openai, recorded
from kto_release.judges.judge import Judge
from kto_release.run import Run

OPENERS: dict[type[recipe.Section], Callable[[Any, Run, Engines], Judge]] = {
    recipe.OpenAIJudge: openai.open_judge,
    recipe.LocalJudge: local.open_judge,
    recipe.RecordedJudge: recorded.open_judge,
}
"""What opens a judge, by its section of the recipe."""


def open_judge(run: Run, section: recipe.Judge, pool: Engines) -> Judge:
    """The judge that a recipe means. Raises `JudgeError`, `ModelError` or `DataError` where it can't be one."""
    return OPENERS[type(section)](section, run, pool)
