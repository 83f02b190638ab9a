"""The weights as they are published, made once of an iteration's: evaluation answers with them, a release holds them.

iteration-N/published/ *.safetensors   in release.dtype, with the configuration that loads them
                       record.json     what was found about them
                       kept.json       what they keep of the training, where anything was rounded
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from kto_release import console
from kto_release.errors import ModelError, ReleaseError
from kto_release.files import read_record, write_atomically, write_record
from kto_release.kept import kept, logprobs, noise, read_rows
from kto_release.models import locate
from kto_release.records import IterationRecord, KeptFacts, ModelFacts, WeightFacts
from kto_release.run import Run
from kto_release.weights import prepare_weights

NOT_PUBLISHED = ("_name_or_path", "torch_dtype")
"""Keys of config.json that are true of this machine, or of the trained weights, only."""


class Published(NamedTuple):
    """A model as it is published."""

    folder: Path
    weights: WeightFacts
    kept: KeptFacts | None
    """Null where nothing was rounded, or the training recorded no rows to measure it on."""


def wanted_dtype(run: Run, base: str) -> str:
    """The dtype that the recipe publishes in, where `base` is the initial model's."""
    return base if run.recipe.release.dtype == "base" else run.recipe.release.dtype


def published(run: Run, record: IterationRecord) -> Published:
    """The iteration's weights as they are published, and what they keep; what was made before is used again.

    Raises `ModelError` where the weights are not those on record, and `ReleaseError` or `ModelError` where a model
    can't be read, loaded or written.
    """
    section = run.recipe
    source = run.path / (record.model.path or "")
    folder = run.iteration(record.iteration) / "published"
    config = _config(source)
    base = locate(section.model.base, section.model.revision)
    weights = prepare_weights(
        source,
        base.path,
        folder,
        section.release.dtype,
        tied=bool(config.get("tie_word_embeddings")),
        rounding=section.release.rounding,
    )
    if weights.source_sha256 != record.model.sha256:
        raise ModelError(
            f"the weights of {record.model.name} are not those on record: digest {weights.source_sha256}",
            expected=record.model.sha256,
            todo="restore the model's folder, or train that iteration again",
        )
    for path in source.iterdir():
        is_weights = ".safetensors" in path.suffixes  # with their index
        if path.is_file() and path.name != "config.json" and not is_weights:
            shutil.copyfile(path, folder / path.name)
    plain = {key: value for key, value in config.items() if key not in NOT_PUBLISHED}
    write_atomically(folder / "config.json", json.dumps({**plain, "dtype": weights.dtype}, indent=2) + "\n")
    return Published(folder, weights, _measured(run, record, folder, weights))


def facts_of(run: Run, record: IterationRecord) -> tuple[Path, ModelFacts]:
    """The folder that an engine loads for the iteration as published, and what a record says of it.

    Weights that were made before are not read again: whoever computes with them checks their digest.
    """
    first = run.iteration_record(1) or record
    if wanted_dtype(run, first.parent.dtype) == record.model.dtype:
        return run.path / (record.model.path or ""), record.model
    folder = run.iteration(record.iteration) / "published"
    weights = read_record(folder / "record.json", WeightFacts)
    section = run.recipe.release
    wanted = (record.model.sha256, first.parent.sha256, section.dtype, section.rounding)
    if weights is None or wanted != (
        weights.source_sha256,
        weights.base_sha256,
        weights.requested,
        section.rounding if weights.rounding == "none" else weights.rounding,
    ):
        weights = published(run, record).weights
    path = str(folder.relative_to(run.path))
    return folder, record.model.model_copy(
        update={"path": path, "sha256": weights.sha256, "dtype": weights.dtype, "parameters": weights.parameters}
    )


def show_kept(made: Published, limit: float) -> None:
    """What the published weights keep of the training, on the console."""
    weights, found = made.weights, made.kept
    if weights.rounding == "none":
        console.say(f"Published: {weights.dtype}, nothing is rounded")
    elif found is None or found.kept is None:
        console.say(f"Published: {weights.dtype}; what that keeps of the training was not measured")
    else:
        line = f"Published: {weights.dtype}, which keeps {in_words(found)}"
        if found.kept.value < limit:
            console.warn(f"{line}: less than release.min_kept ({limit:.0%}); set release.dtype: float32")
        else:
            console.say(line)


def in_words(found: KeptFacts) -> str:
    """The share that is kept with its interval, and the noise of the rounding."""
    if found.kept is None:
        return "all of a training that changed nothing"
    low, high = 100 * found.kept.low, 100 * found.kept.high
    doubt = f"; {found.kept.note}" if found.kept.note else ""
    return (
        f"{found.kept.value:.1%} of the training ({low:.1f} to {high:.1f}, n = {found.kept.n}{doubt}), with a noise of "
        f"{found.noise:.2g} nats per answer"
    )


def _config(source: Path) -> dict[str, object]:
    try:
        plain = json.loads((source / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ReleaseError(
            f"{str(source / 'config.json')!r} can't be read: {error}", todo="restore the file, or train again"
        ) from None
    if not isinstance(plain, dict):
        raise ReleaseError(
            f"{str(source / 'config.json')!r} is no JSON object", todo="restore the file, or train again"
        )
    return plain


def _measured(run: Run, record: IterationRecord, folder: Path, weights: WeightFacts) -> KeptFacts | None:
    path = folder / "kept.json"
    old = read_record(path, KeptFacts)
    if old is not None and (old.source_sha256, old.sha256) == (weights.source_sha256, weights.sha256):
        return old
    rows = [row for row in read_rows(run.iteration(record.iteration)) if row.digest in record.initial_logprobs]
    if weights.rounding == "none" or weights.not_finite or not rows:
        return None
    found = logprobs(folder, rows, trust_remote_code=run.recipe.model.trust_remote_code)
    prompts = {row.digest: tuple(row.prompt) for row in rows}
    facts = KeptFacts(
        source_sha256=weights.source_sha256,
        sha256=weights.sha256,
        published=found,
        kept=kept(record.logprobs, found, record.initial_logprobs, prompts),
        noise=noise(record.logprobs, found),
    )
    write_record(path, facts)
    return facts
