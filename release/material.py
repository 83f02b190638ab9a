"""What a run holds for a release, and what it lacks."""

from pathlib import Path
from typing import NamedTuple

from kto_release.errors import ModelError
from kto_release.models import LocalModel, locate
from kto_release.records import EvalRecord, IterationRecord
from kto_release.run import Run


class Material(NamedTuple):
    """What the run holds for a release, and what it lacks."""

    folder: Path
    """Where weights and bundle of this release are made."""
    iterations: list[IterationRecord]
    """Up to the one that is published."""
    evaluations: list[tuple[Path, EvalRecord]]
    base: LocalModel | None
    lacking: list[str]
    """What a release must have and the run has not, one line each."""
    unmeasured: list[str]
    """What a release may lack, and its card then says."""

    @property
    def ready(self) -> bool:
        """Whether a bundle can be made."""
        return bool(self.iterations) and self.base is not None

    @property
    def missing(self) -> list[str]:
        """All that is not there."""
        return self.lacking + self.unmeasured


def collect(run: Run, iteration: int | None = None) -> Material:
    """Look at the run, up to `iteration` (null: the last finished one); nothing is written, and nothing is an error."""
    planned = run.recipe.data.iterations
    finished = run.iteration_records()
    iterations = finished if iteration is None else finished[:iteration]
    wanted = range(1, (planned if iteration is None else iteration) + 1)
    stopped = None if iteration is not None else _stopped(run, iterations)
    lacking = [
        f"iteration {number} of {planned} is not trained: kto-release train"
        for number in wanted[len(iterations) :]
        if stopped is None
    ]
    base = None
    try:
        base = locate(run.recipe.model.base, run.recipe.model.revision, config_only=not iterations)
    except ModelError as error:
        lacking.append(f"the initial model: {error.problem}")
    if iterations and not (run.iteration(len(iterations)) / "model" / "config.json").is_file():
        lacking.append(f"iteration {len(iterations)} has a record, and its model folder is gone")
    later = {record.model.name for record in finished[len(iterations) :]}
    evaluations = [
        (where, record)
        for where, record in run.eval_records()
        if record.model is None or record.model.name not in later
    ]
    unmeasured = [] if evaluations else ["no evaluation: kto-release eval (without it, the card says: not measured)"]
    if run.recipe.release.repo_id is None:
        lacking.append("release.repo_id in the recipe: where to publish to")
    folder = run.release_folder if iteration is None else run.release_folder / f"iteration-{iteration}"
    return Material(folder, iterations, evaluations, base, lacking, unmeasured)


def _stopped(run: Run, iterations: list[IterationRecord]) -> str | None:
    """Why the run ended before its last iteration: a rule of the recipe that fired; None where none did."""
    if not iterations or not run.recipe.train.stop_if:
        return None
    from kto_release.train.chain import stopped_by  # brings torch, and only a run with such rules needs it

    return stopped_by(run.recipe.train.stop_if, iterations[-1].probe)
