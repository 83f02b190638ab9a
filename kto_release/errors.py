"""The one exception family of kto-release; `cli.main` is the only place that catches it.

KtoReleaseError
├── RecipeError    the recipe, or a command's arguments
├── DataError      feedback or instructions
├── ModelError     weights, tokenizer, template
├── RunError       the run directory: foreign, locked, damaged, changed
├── EngineError    generation
├── JudgeError     a judge that does not answer, or not usably
├── ScoreError     judgements that can't be scored
├── HubError       the Hugging Face Hub said no, or nothing
└── ReleaseError   a release check failed
"""

from collections.abc import Sequence


class KtoReleaseError(Exception):
    """A problem that a user can solve; shown without a traceback.

    A message has up to three parts: what is wrong (with the value), what was expected, and what to do.
    """

    def __init__(self, problem: str, *, expected: str | None = None, todo: str | None = None) -> None:
        self.problem, self.expected, self.todo = problem, expected, todo
        super().__init__(problem)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.todo:
            lines.append(f"  to do: {self.todo}")
        return "\n".join(lines)


class RecipeError(KtoReleaseError):
    """The recipe, or a command's arguments, can't be used."""

    @classmethod
    def from_problems(cls, where: str, problems: Sequence[str], todo: str | None = None) -> "RecipeError":
        """All problems of one recipe at once, a line each."""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        return cls("\n".join([f"{where}: {count}", *(f"  - {problem}" for problem in problems)]), todo=todo)


class DataError(KtoReleaseError):
    """Feedback or instructions are missing, malformed or unusable."""

    @classmethod
    def together(cls, errors: "Sequence[DataError]") -> "DataError":
        """Several as one: what each says, then what is to be done, each thing once."""
        if len(errors) == 1:
            return errors[0]
        expected = dict.fromkeys(error.expected for error in errors if error.expected)
        todo = dict.fromkeys(line.strip() for error in errors if error.todo for line in error.todo.splitlines())
        return cls(
            "\n".join(error.problem for error in errors),
            expected="; ".join(expected) or None,
            todo="\n         ".join(todo) or None,
        )


class ModelError(KtoReleaseError):
    """A model, tokenizer or chat template is missing, malformed or breaks its contract."""


class RunError(KtoReleaseError):
    """The run directory is in use, damaged, incomplete, or belongs to something else."""


class EngineError(KtoReleaseError):
    """Generation is impossible or failed."""


class JudgeError(KtoReleaseError):
    """The judge does not answer, or its answers can't be used."""


class ScoreError(KtoReleaseError):
    """Judgements that no honest score can be computed from."""


class HubError(KtoReleaseError):
    """The Hub refused, failed, or could not be reached."""


class ReleaseError(KtoReleaseError):
    """A release check failed: nothing was sent."""
