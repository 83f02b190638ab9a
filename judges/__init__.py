"""What compares two answers: an API, a local model, or recorded judgements. `OPENERS` is the list of them."""

from typing import Any, Protocol

from kto_release import recipe
from kto_release.engines import Engines
from kto_release.judges import local_settling, recorded, settling
from kto_release.judges.judge import Judge, Load
from kto_release.run import Run


class Opener(Protocol):
    """What opens a judge."""

    def __call__(self, section: Any, run: Run, pool: Engines, load: Load | None, /, *, again: bool) -> Judge:
        """See `open_judge`."""


OPENERS: dict[type[recipe.Section], Opener] = {
    recipe.OpenAIJudge: settling.open_judge,
    recipe.LocalJudge: local_settling.open_judge,
    recipe.RecordedJudge: recorded.open_judge,
}
"""What opens a judge, by its section of the recipe."""


def open_judge(
    run: Run, section: recipe.Judge, pool: Engines, load: Load | None = None, *, again: bool = False
) -> Judge:
    """The judge that a recipe means, tried with five small pairs where that is to show how it is asked.

    `load` is what it will be asked, for its price; `again` has it tried although it need not be. Raises `JudgeError`,
    `ModelError` or `DataError` where it can't be a judge.
    """
    return OPENERS[type(section)](section, run, pool, load, again=again)
