"""release.json as the records make it: written by whoever makes a release, made again by whoever checks it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kto_release.records import EvalRecord, IterationRecord, WeightFacts
from kto_release.release.manifest import Link, Manifest, ReleaseFile, Result


def describe(
    name: str,
    repo_id: str | None,
    made_by: str,
    iterations: Sequence[IterationRecord],
    evaluations: Sequence[tuple[str, EvalRecord]],
    weights: WeightFacts,
    files: list[ReleaseFile],
) -> Manifest:
    """The sealed manifest of a release: `evaluations` go by what they are called in it, `files` are all but itself."""
    records = [record for _, record in evaluations]
    return Manifest(
        name=name,
        repo_id=repo_id,
        finished=max([record.finished for record in iterations] + [record.finished for record in records]),
        made_by=made_by,
        base=iterations[0].parent,
        trained=iterations[-1].model,
        weights=weights,
        chain=[
            Link(
                iteration=record.iteration,
                parent_sha256=record.parent.sha256,
                reference_sha256=record.reference.sha256,
                model_sha256=record.model.sha256,
                partition=record.partition.name,
                source=record.partition.source,
                revision=record.partition.revision,
                data_sha256=record.partition.sha256,
            )
            for record in iterations
        ],
        recipe_sha256=iterations[-1].recipe_sha256,
        environment=iterations[-1].environment,
        results=[
            Result(
                score=record.score,
                model=record.who,
                judge=record.judge.name,
                n_total=record.n_total,
                win_rate=record.win_rate,
                length_controlled_winrate=record.length_controlled_winrate,
                intervals=record.intervals,
                reliable=record.reliable,
                record=f"records/{called}.json",
                judgements=f"judgements/{called}.jsonl",
            )
            for called, record in evaluations
        ],
        files=files,
        digest="",
    ).sealed()


def different(made: Manifest, stated: Manifest) -> Iterator[str]:
    """Where a manifest says something else than the records make of it: the keys, each with both values."""
    yield from _different("", made.model_dump(mode="json", exclude={"digest"}), stated.model_dump(mode="json"))


def _different(where: str, made: Any, stated: Any) -> Iterator[str]:
    if isinstance(made, Mapping) and isinstance(stated, Mapping):
        for key in [*made, *(key for key in stated if key not in made and key != "digest")]:
            yield from _different(f"{where}.{key}".removeprefix("."), made.get(key), stated.get(key))
    elif isinstance(made, list) and isinstance(stated, list) and len(made) == len(stated):
        for place, (one, other) in enumerate(zip(made, stated, strict=True)):
            yield from _different(f"{where}[{place}]", one, other)
    elif made != stated:
        yield f"{where} is {_short(stated)}, and the records say {_short(made)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
