"""`kto-release judge RECIPE`: ask the judge five small pairs; how it answers, and what judging will cost."""

from kto_release import console
from kto_release.engines import engines
from kto_release.errors import RecipeError
from kto_release.evaluate.instructions import InstructionSet, load_instructions
from kto_release.judges import open_judge
from kto_release.judges.judge import Load
from kto_release.recipe import EvalSection
from kto_release.run import Run

ANSWER = 1500
"""Characters of an answer that is still to come; AlpacaEval's reference answers have 2,049 on average."""
CHARACTERS_PER_TOKEN = 4


def expected_load(settings: EvalSection, instructions: InstructionSet) -> Load:
    """What an evaluation will ask its judge, before its answers are there."""
    answer = min(ANSWER, settings.generation.max_tokens * CHARACTERS_PER_TOKEN)
    orders = 2 if settings.judge is not None and getattr(settings.judge, "swap", False) else 1
    times = orders * settings.generation.samples
    characters = sum(len(row.text) + 2 * answer for row in instructions.rows)
    return Load(times * len(instructions.rows), times * characters)


def try_judge(run: Run) -> None:
    """Ask the recipe's judge the small questions, whatever was asked before, and keep what it did with the run.

    Raises `RecipeError` without a judge, and `JudgeError` where it can't be one.
    """
    settings = run.recipe.eval
    if settings.judge is None:
        raise RecipeError("the recipe names no judge", todo="set eval.judge")
    load = expected_load(settings, load_instructions(settings, run.recipe.data))
    with run.lock(), engines(settings.engine, run.path / "eval" / "vllm.log") as pool:
        run.create()
        judge = open_judge(run, settings.judge, pool, load, again=True)
    if settings.judge.kind == "recorded":
        console.say(judge.priced(load))
