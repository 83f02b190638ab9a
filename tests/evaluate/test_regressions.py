"""What training broke: the same samples of two models, three outcomes, and the logs that they are read from."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kto_release.errors import DataError, EngineError, ScoreError
from kto_release.evaluate.regressions.command import are_wanted
from kto_release.evaluate.regressions.logs import read_log
from kto_release.evaluate.regressions.outcome import regression
from kto_release.recipe import EvalSection


def values(right: int, n: int, first: int = 0) -> dict[str, float]:
    return {str(number): float(first <= number < first + right) for number in range(n)}


def test_a_score_that_hardly_moved_held() -> None:
    """400 samples, 6 lost and 6 won: 0 points, within two of which the interval lies."""
    found = regression("t", "acc", values(200, 400), values(200, 400, first=6), 2.0)
    assert (found.before, found.after, found.difference.value, found.outcome) == (50.0, 50.0, 0.0, "held")
    assert -2 < found.difference.low < 0 < found.difference.high < 2


def test_a_certain_loss_is_worse() -> None:
    """80 of 400 samples lost and none won: 20 points."""
    found = regression("t", "acc", values(200, 400), values(120, 400), 2.0)
    assert (found.difference.value, found.outcome) == (-20.0, "worse")
    assert found.in_words().startswith("t: worse: 50.0% before, 30.0% after (acc), -20.0 points (")


def test_few_samples_tell_nothing() -> None:
    """10 samples, one lost and one won: no loss is seen, and none is ruled out."""
    found = regression("t", "acc", values(5, 10), values(5, 10, first=1), 2.0)
    assert (found.difference.value, found.outcome) == (0.0, "too few to tell")


def test_other_samples_are_not_compared() -> None:
    """A paired difference needs pairs."""
    with pytest.raises(ScoreError, match="t: 1 samples were answered by only one of the two models"):
        regression("t", "acc", values(5, 10), values(5, 11), 2.0)
    with pytest.raises(ScoreError, match="outside"):
        regression("t", "perplexity", {"0": 12.0}, {"0": 13.0}, 2.0)


def lm_eval_rows(path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"doc_id": n, "filter": f, "metrics": ["exact_match"], "exact_match": float(n == 1 and f == "strict")}
        for f in ("strict", "flexible")
        for n in range(2)
    ]
    (path / "samples_gsm8k_2026-01-02T03-04-05.678.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def inspect_log(path: Path) -> None:
    samples = [{"id": n, "epoch": 1, "scores": {"match": {"value": "CI"[n]}}} for n in range(2)]
    (path / "log.json").write_text(json.dumps({"version": 2, "eval": {"task": "gsm8k"}, "samples": samples}))


def lighteval_details(path: Path) -> None:
    frame = pd.DataFrame({"doc": [{"id": "a"}, {"id": "b"}], "metric": [{"em": 1.0}, {"em": 0.0}]})
    frame.to_parquet(path / "details_gsm8k_2026-01-02T03-04-05.678.parquet")


@pytest.mark.parametrize(
    ("write", "metric", "scores"),
    [
        (lm_eval_rows, "exact_match", [0.0, 1.0]),
        (inspect_log, "match", [1.0, 0.0]),
        (lighteval_details, "em", [1.0, 0.0]),
    ],
)
def test_logs_are_read(tmp_path: Path, write: Any, metric: str, scores: list[float]) -> None:
    """Of each benchmark one metric, a share for each sample; of lm-eval's filters the first."""
    write(tmp_path)
    [(name, found)] = read_log(tmp_path).items()
    assert (name, found.metric, list(found.values.values())) == ("gsm8k", metric, scores)


def test_a_folder_without_samples_is_refused(tmp_path: Path) -> None:
    """A summary holds no samples, and nothing can be paired."""
    (tmp_path / "results_2026.json").write_text("{}")
    with pytest.raises(DataError, match="holds no samples of a benchmark"):
        read_log(tmp_path)


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-evaluation-harness is installed")
def test_a_missing_harness_is_told_before_anything_is_done() -> None:
    """With the command that installs it; logs need none."""
    with pytest.raises(EngineError, match="needs lm-evaluation-harness, which is not installed"):
        are_wanted(EvalSection(regressions=["gsm8k"]))
    assert are_wanted(EvalSection(regression_logs=["a", "b"])) is True
    assert are_wanted(EvalSection()) is False
