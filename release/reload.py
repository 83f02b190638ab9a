"""The trained and the published weights, loaded as any reader loads them, give the log-probabilities on record.

Training records log π of some rows of feedback for the model that it saved. A few of them are computed once more from
the saved weights, by transformers alone; all of them by the published ones (`kto_release.published`), which tells what
rounding did to the model's function.
"""

from pathlib import Path

from kto_release.files import read_record, write_record
from kto_release.kept import logprobs, read_rows
from kto_release.published import Published
from kto_release.records import IterationRecord, ReloadFacts
from kto_release.run import Run

CHECKED = 4
"""Rows that the trained weights are checked on."""


def check_reload(
    run: Run, record: IterationRecord, made: Published, folder: Path, *, source: Path
) -> ReloadFacts | None:
    """Log-probabilities of the recorded rows by the trained, the published and the initial weights.

    `folder` holds the published model, complete; the result is kept beside the weights and used again. None where
    nothing was recorded. Raises `ModelError` where a model can't be loaded.
    """
    path = made.folder / "reload.json"
    old = read_record(path, ReloadFacts)
    if old is not None and (old.source_sha256, old.sha256) == (made.weights.source_sha256, made.weights.sha256):
        return old
    rows = [row for row in read_rows(run.iteration(record.iteration)) if row.digest in record.logprobs]
    if not rows:
        return None
    code = run.recipe.model.trust_remote_code
    published = made.kept.published if made.kept else logprobs(folder, rows[:CHECKED], trust_remote_code=code)
    facts = ReloadFacts(
        source_sha256=made.weights.source_sha256,
        sha256=made.weights.sha256,
        recorded=record.logprobs,
        trained=logprobs(source, rows[:CHECKED], trust_remote_code=code),
        published=published,
        initial=record.initial_logprobs,
    )
    write_record(path, facts)
    return facts
