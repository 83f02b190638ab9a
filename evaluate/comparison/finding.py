"""Which evaluations the folders of `--compare` mean, and what each is called beside the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_release.errors import RunError
from kto_release.evaluate.compare import evaluations_in, load
from kto_release.evaluate.scoring.paired import Evaluation, setup
from kto_release.records import EvalRecord

Found = tuple[Path, EvalRecord]


def find_all(folders: Sequence[Path]) -> list[Found]:
    """One evaluation for each folder: results.json in it, or those of the folders that fit each other.

    Of a run's evaluations those of the last evaluated iteration are meant. Raises `RunError`.
    """
    meant = [_meant(folder) for folder in folders]
    if all(len(found) == 1 for found in meant):
        return [found[0] for found in meant]
    names = {record.reference_sha256: record.reference for found in reversed(meant) for _, record in reversed(found)}

    def scale(record: EvalRecord) -> tuple[str, ...]:
        return setup(record.model_copy(update={"reference": names[record.reference_sha256]}))

    shared = set.intersection(*({scale(record) for _, record in found} for found in meant))
    fitting = [[one for found in meant for one in found if scale(one[1]) == key] for key in shared]
    unique = [found for found in fitting if len(found) == len(folders)]
    if len(unique) != 1 or len(fitting) != 1:
        every = list(dict.fromkeys((folder, record.score) for found in meant for folder, record in found))
        listed = "\n".join(f"  - {folder}: {score}" for folder, score in every)
        which = "pair" if len(folders) == 2 else "set"
        problem = f"{f'several {which}s' if fitting else f'no {which}'} of these evaluations can be compared"
        raise RunError(
            f"{problem if len(folders) > 1 else 'one folder means several evaluations'}:\n{listed}",
            expected="folders that mean one evaluation each",
            todo="name the judge's folders: runs/NAME/eval/MODEL/INSTRUCTIONS/JUDGE",
        )
    return unique[0]


def named(found: Sequence[Found]) -> list[Evaluation]:
    """The evaluations with their rows, each under a name that no other has.

    That is the model's; where two share it (iteration-1 of two runs), with its run's, or else with its weights' digest.
    """
    loaded = [load(*item) for item in found]
    plain = [one.record.who for one in loaded]
    by_run = [f"{_run_of(folder)} {record.who}" for folder, record in found]
    digests = [record.model.sha256[:8] if record.model else (record.inputs_sha256 or "")[:8] for _, record in found]
    by_digest = [f"{name} {digest}".strip() for name, digest in zip(by_run, digests, strict=True)]
    numbered = [f"{name} ({number})" for number, name in enumerate(plain, 1)]
    names = next(names for names in (plain, by_run, by_digest, numbered) if len(set(names)) == len(names))
    return [one._replace(label=name) for one, name in zip(loaded, names, strict=True)]


def reference_of(evaluation: Evaluation) -> Evaluation:
    """The reference of an evaluation as one itself: it draws with itself on every question."""
    rows = [
        row._replace(output=row.reference, preference=None if row.preference is None else 1.5, raw=None)
        for row in evaluation.rows
    ]
    record = evaluation.record
    bare: dict[str, Any] = {
        "model": None,
        "answers_by": record.reference,
        "gamed": [],
        "unreliable_because": [],
        "intervals": {},
    }
    return Evaluation(record.model_copy(update=bare), rows, record.reference)


def _run_of(folder: Path) -> str:
    """Name of the run that an evaluation's folder belongs to, as far as its path tells."""
    parts = folder.resolve().parts
    return parts[-5] if len(parts) > 5 and parts[-4] == "eval" else parts[-1]


def _meant(folder: Path) -> list[Found]:
    """The evaluations that a folder can mean: all of the last iteration in it."""
    if not folder.is_dir():
        raise RunError(f"no such folder: {str(folder)!r}", expected="a run, or an evaluation's folder")
    found = evaluations_in(folder)
    if not found:
        raise RunError(
            f"{str(folder)!r} holds no evaluation",
            expected="results.json in it or below",
            todo="kto-release eval first",
        )
    last = max(record.iteration or 0 for _, record in found)
    return [(where, record) for where, record in found if (record.iteration or 0) == last]
