"""A judge in words through a whole evaluation: tried, asked with votes, its name, its facts; `judge` alone; batches."""

import json
from pathlib import Path
from typing import Any

import pytest
from provider import Answer, Asked, provider, says

from kto_release.evaluate import evaluate
from kto_release.evaluate.trying import try_judge
from kto_release.recipe_file import load_recipe
from kto_release.records import EvalRecord
from kto_release.run import Run

QUALITIES = [3, 8, 5, 9, 2, 7]


def opened(folder: Path, **judge: Any) -> Run:
    rows = [{"instruction": f"Question {n}?"} for n in range(len(QUALITIES))]
    (folder / "prompts.json").write_text(json.dumps(rows))
    for name, marks in (("ref", [5] * 6), ("mine", QUALITIES)):
        stored = [
            row | {"output": f"{name} (q={mark})", "generator": name} for row, mark in zip(rows, marks, strict=True)
        ]
        (folder / f"{name}.json").write_text(json.dumps(stored))
    recipe = {
        "name": "words",
        "model": {"base": "none/none", "template": "base"},
        "data": {"source": "none.jsonl", "partitions": 1},
        "eval": {
            "prompts": str(folder / "prompts.json"),
            "reference": str(folder / "ref.json"),
            "judge": {"kind": "openai", "model": "wordy", **judge},
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return Run.open(load_recipe(folder / "recipe.yaml", []), folder / "runs")


def wordy(asked: Asked) -> Answer:
    """It thinks, then says so; a model of another name answers."""
    if "logprobs" in asked.body:
        return 400, {"error": {"message": "logprobs are not supported"}}
    status, body = says(f"<think>m or M?</think>Output ({asked.letter}) is better.")
    return status, {**body, "model": "wordy-2026", "provider": "Somebody"}


def test_a_judge_in_words_gives_a_score_that_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Votes and both orders; a second evaluation asks nothing; what answered and how it did on known answers is told."""
    with provider(wordy) as server:
        run = opened(tmp_path, base_url=server.url, votes=2, swap=True)
        record = evaluate(run, outputs=tmp_path / "mine.json")
        assert len(server.bodies) == 1 + 10 + 1 + 2 * 2 * len(QUALITIES)
        assert evaluate(run, outputs=tmp_path / "mine.json") == record
        assert len(server.bodies) == 1 + 10 + 1 + 2 * 2 * len(QUALITIES)
    assert isinstance(record, EvalRecord)
    assert record.score.endswith(", both orders, discrete verdicts in words, 2 votes]")
    assert record.win_rate == pytest.approx(100 * 3.5 / 6)  # 8, 9 and 7 win, 3 and 2 lose; of equals, the first shown
    assert record.judging is not None
    assert [(one.model, one.provider, one.judgements) for one in record.judging.served] == [
        ("wordy-2026", "Somebody", 12)
    ]
    assert record.judging.trial == "10 of 10 small questions right (a coin: 5), 0 of 5 pairs turned with the order"
    said = capfd.readouterr().out
    assert "judge wordy: verdicts from its words" in said
    assert "the judge answered as wordy-2026 (12)" in said


def test_judge_alone_asks_the_small_questions_and_prices_the_evaluation(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each time anew; nothing else is asked, and no answer is generated."""
    with provider(wordy) as server:
        run = opened(tmp_path, base_url=server.url, price_per_million_input=1, price_per_million_output=1)
        try_judge(run)
        asked = len(server.bodies)
        assert asked == 1 + 1 + 10
        try_judge(run)
        assert len(server.bodies) == 2 * asked
    said = " ".join(capfd.readouterr().out.split())
    assert "500 tokens read and 20 written each; it answers as wordy-2026" in said
    price = "at most $0.02, $0.01 where answers are as long as those"
    assert f"for this evaluation: wordy: 6 judgements, about 6,476 tokens, {price}" in said
    assert not list(run.path.glob("eval/*/*/answers.jsonl"))


def test_an_evaluation_waits_for_its_batches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No score and no error while they are waited for; then the score, without a single request."""
    run = opened(tmp_path, batch="anthropic")
    assert evaluate(run, outputs=tmp_path / "mine.json") is None
    assert "6 of 6 judgements wait for batches" in capfd.readouterr().out
    [path] = run.path.glob("eval/*/*/*/batch/requests-001.json")
    lines = []
    for request in json.loads(path.read_text())["requests"]:
        message = {"content": [{"type": "text", "text": "m"}], "stop_reason": "end_turn", "model": "wordy"}
        lines.append({"custom_id": request["custom_id"], "result": {"type": "succeeded", "message": message}})
    (path.parent / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    record = evaluate(run, outputs=tmp_path / "mine.json")
    assert record is not None
    assert record.n_total == 6
