"""Logs of lm-evaluation-harness, Inspect and LightEval: each sample's value of one metric, by benchmark.

A log is a file or a folder: lm-eval's samples_TASK_DATE.jsonl, Inspect's log in JSON or .eval, LightEval's
details_TASK_DATE.parquet.
"""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kto_release.errors import DataError
from kto_release.json_rows import read_objects

LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Inspect's values: correct, incorrect, partly, no answer."""
EXPECTED = "lm-eval's samples_*.jsonl, Inspect's .json or .eval, or LightEval's details_*.parquet"


class Scored(NamedTuple):
    """One benchmark's samples."""

    metric: str
    values: dict[str, float]
    """By the sample's own name."""


def read_log(path: Path) -> dict[str, Scored]:
    """The benchmarks in a log, by name. Raises `DataError`."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if _is_log(one))
    found: dict[str, Scored] = {}
    for file in files:
        for name, scored in _benchmarks(file):
            if name in found:
                raise DataError(f"{str(path)!r} holds {name} twice", todo="leave one result of each benchmark there")
            found[name] = scored
    if not found:
        raise DataError(f"{str(path)!r} holds no samples of a benchmark", expected=EXPECTED)
    return found


def of_lm_eval(rows: list[Mapping[str, Any]]) -> Scored:
    """lm-eval's samples: the first metric of the first filter that gives every sample a share."""
    first = rows[0].get("filter", "none")
    chosen = [row for row in rows if row.get("filter", "none") == first]
    names = [str(name) for name in chosen[0].get("metrics") or []]
    for name in names:
        values = {str(row.get("doc_id")): _share(row.get(name)) for row in chosen}
        if len(values) == len(chosen) and None not in values.values():
            return Scored(name, {key: value for key, value in values.items() if value is not None})
    raise DataError(f"none of the metrics {names} is a share for each sample", expected="acc, exact_match and the like")


def _is_log(path: Path) -> bool:
    name = path.name
    return (
        (name.startswith("samples_") and name.endswith(".jsonl"))
        or name.endswith(".eval")
        or (name.startswith("details_") and name.endswith(".parquet"))
        or (name.endswith(".json") and not name.startswith("results_") and _is_inspect(path))
    )


def _is_inspect(path: Path) -> bool:
    with path.open("rb") as file:
        return b'"eval"' in file.read(4096)


def _benchmarks(path: Path) -> Iterator[tuple[str, Scored]]:
    name = path.name
    if name.endswith(".jsonl"):
        yield _named(name, "samples_"), of_lm_eval([*read_objects(path)])
    elif name.endswith(".parquet"):
        yield _named(name, "details_"), _of_lighteval(path)
    elif name.endswith((".eval", ".json")):
        yield _of_inspect(path)
    else:
        raise DataError(f"{name!r} is no log that can be read", expected=EXPECTED)


def _named(name: str, start: str) -> str:
    """The benchmark's name, without the date that follows it."""
    return re.sub(r"_\d{4}-\d\d-\d\dT.*$", "", name.removeprefix(start).rsplit(".", 1)[0])


def _of_inspect(path: Path) -> tuple[str, Scored]:
    try:
        if path.name.endswith(".eval"):
            with zipfile.ZipFile(path) as archive:
                head = json.loads(archive.read("header.json"))
                names = [one for one in archive.namelist() if one.startswith("samples/")]
                samples = [json.loads(archive.read(one)) for one in names]
        else:
            head = json.loads(path.read_text(encoding="utf-8"))
            samples = head.get("samples") or []
        task = str(head["eval"]["task"])
        scorer = next(iter(samples[0]["scores"]))
        values = {
            f"{sample['id']}, epoch {sample.get('epoch', 1)}": _share(sample["scores"][scorer]["value"])
            for sample in samples
        }
    except (OSError, zipfile.BadZipFile, KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise DataError(f"{path.name!r} is no log of Inspect with samples: {error!r}", expected=EXPECTED) from None
    return task, _complete(path, scorer, values)


def _of_lighteval(path: Path) -> Scored:
    import pandas as pd

    frame = pd.read_parquet(path)
    column = next((name for name in ("metric", "metrics") if name in frame.columns), None)
    if column is None or not len(frame):
        raise DataError(f"{path.name!r} has no column 'metric'", expected="LightEval's details of each sample")
    metrics = [dict(one) for one in frame[column]]
    for name in metrics[0]:
        values = {str(number): _share(one.get(name)) for number, one in enumerate(metrics)}
        if None not in values.values():
            return _complete(path, str(name), values)
    raise DataError(f"{path.name!r}: none of {list(metrics[0])} is a share for each sample")


def _complete(path: Path, metric: str, values: Mapping[str, float | None]) -> Scored:
    known = {key: value for key, value in values.items() if value is not None}
    if len(known) < len(values):
        raise DataError(f"{path.name}: {len(values) - len(known)} samples have no value of {metric!r} in [0, 1]")
    return Scored(metric, known)


def _share(value: Any) -> float | None:
    """A value that is a share of a sample: a number from 0 to 1, true or false, one of Inspect's letters."""
    if isinstance(value, str):
        return LETTERS.get(value)
    if isinstance(value, list) and value and all(isinstance(one, bool) for one in value):
        return sum(value) / len(value)  # IFEval's instructions of one prompt
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number <= 1 else None
