"""Questions in batches: written in the provider's form, collected later, each step as often as one likes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kto_release.errors import JudgeError, RunError
from kto_release.files import read_jsonl
from kto_release.judges.asking import Journal, Pair, judge_pairs
from kto_release.judges.batch import collected
from kto_release.judges.openai import OpenAIJudge
from kto_release.judges.prompt import load_prompt
from kto_release.recipe import OpenAIJudge as Section

PAIRS = [Pair(f"Say {n}.", "", 0, "no", f"yes {n}") for n in range(3)]


def judge(form: str = "openai", **keys: Any) -> OpenAIJudge:
    section = Section(**{"kind": "openai", "model": "judge-1", "verdict": "text", "batch": form, **keys})
    return OpenAIJudge(section, load_prompt("alpaca_eval"))


def turn(folder: Path, made: OpenAIJudge, pairs: list[Pair] = PAIRS) -> tuple[bool, Journal]:
    """One run of the command."""
    journal = Journal(folder)
    return collected(made, pairs, journal), journal


def openai_line(request: dict[str, Any], text: str = "m") -> dict[str, Any]:
    body = {
        "model": "judge-1-2026",
        "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000},
    }
    return {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}


def anthropic_line(request: dict[str, Any], text: str = "m") -> dict[str, Any]:
    message = {
        "model": "judge-1",
        "content": [{"type": "thinking", "thinking": "M?"}, {"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 2},
    }
    return {"custom_id": request["custom_id"], "result": {"type": "succeeded", "message": message}}


def requests(folder: Path, number: int = 1) -> list[dict[str, Any]]:
    path = folder / "batch" / f"requests-{number:03}"
    if path.with_suffix(".jsonl").is_file():
        return read_jsonl(path.with_suffix(".jsonl"))
    found: list[dict[str, Any]] = json.loads(path.with_suffix(".json").read_text())["requests"]
    return found


def put(folder: Path, name: str, lines: list[dict[str, Any]]) -> None:
    (folder / "batch" / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_requests_are_written_once_in_openais_form(tmp_path: Path) -> None:
    """A second run waits for the same; the body is what a single request would send."""
    made = judge(max_tokens=64)
    assert turn(tmp_path, made)[0] is False
    assert turn(tmp_path, made)[0] is False
    assert [path.name for path in (tmp_path / "batch").iterdir()] == ["requests-001.jsonl"]
    first, *_ = found = requests(tmp_path)
    assert len(found) == 3
    assert (first["method"], first["url"]) == ("POST", "/v1/chat/completions")
    assert {key: value for key, value in first["body"].items() if key != "messages"} == {
        "model": "judge-1",
        "max_tokens": 64,
    }
    assert [message["role"] for message in first["body"]["messages"]] == ["system", "user"]
    assert all(len(request["custom_id"]) <= 64 for request in found)


@pytest.mark.parametrize(("form", "line"), [("openai", openai_line), ("anthropic", anthropic_line)])
def test_what_came_back_is_judged(tmp_path: Path, form: str, line: Callable[..., Any]) -> None:
    """In any order and file; preferences speak of the model's answer, and nobody is asked anything else."""
    made = judge(form)
    turn(tmp_path, made)
    put(tmp_path, "results.jsonl", [line(request) for request in reversed(requests(tmp_path))])
    done, journal = turn(tmp_path, made)
    assert done
    result = judge_pairs(made, PAIRS, journal)
    assert {row.preference for row in result.rows} <= {1.0, 2.0}
    assert [row.failure for row in result.rows] == [None] * 3
    assert len(read_jsonl(tmp_path / "judgements.jsonl")) == 3


def test_anthropics_form_has_the_system_text_apart(tmp_path: Path) -> None:
    """And tokens that were cached are read, too."""
    made = judge("anthropic")
    turn(tmp_path, made)
    params = requests(tmp_path)[0]["params"]
    assert params.keys() == {"model", "max_tokens", "system", "messages"}
    assert [message["role"] for message in params["messages"]] == ["user"]
    put(tmp_path, "r.jsonl", [anthropic_line(request) for request in requests(tmp_path)])
    _, journal = turn(tmp_path, made)
    assert {verdict.tokens for verdict in journal.verdicts.values()} == {(15, 2)}


def test_half_the_price(tmp_path: Path) -> None:
    """Two million tokens at a dollar each million are one dollar; a limit below the estimate writes nothing."""
    prices = {"price_per_million_input": 1, "price_per_million_output": 1}
    made = judge(**prices)
    turn(tmp_path, made)
    put(tmp_path, "r.jsonl", [openai_line(request) for request in requests(tmp_path)])
    _, journal = turn(tmp_path, made)
    assert {verdict.price for verdict in journal.verdicts.values()} == {1.0}
    with pytest.raises(JudgeError, match="nothing was asked"):
        turn(tmp_path / "dear", judge(**prices, max_cost=0.001))
    assert not (tmp_path / "dear" / "batch").exists()


def test_what_expired_or_says_nothing_is_asked_again_and_a_refusal_is_final(tmp_path: Path) -> None:
    """In a second file, under another name; after three answers without a verdict the question has failed."""
    made = judge()
    turn(tmp_path, made)
    one, two, three = requests(tmp_path)
    expired = {
        "custom_id": one["custom_id"],
        "response": None,
        "error": {"code": "batch_expired", "message": "expired"},
    }
    body = {"error": {"message": "flagged", "code": "invalid_prompt"}}
    refused = {"custom_id": three["custom_id"], "response": {"status_code": 400, "body": body}, "error": None}
    put(tmp_path, "first.jsonl", [expired, openai_line(two, "I can't say"), refused])
    assert turn(tmp_path, made)[0] is False
    again = requests(tmp_path, 2)
    assert [request["body"] for request in again] == [one["body"], two["body"]]
    put(tmp_path, "second.jsonl", [openai_line(again[0]), openai_line(again[1], "I can't say")])
    assert turn(tmp_path, made)[0] is False
    put(tmp_path, "third.jsonl", [openai_line(request, "I can't say") for request in requests(tmp_path, 3)])
    done, journal = turn(tmp_path, made)
    assert done
    assert [row.failure for row in judge_pairs(made, PAIRS, journal).rows] == [
        None,
        "no one verdict ('m' or 'M') in \"I can't say\"",
        "HTTP 400: flagged",
    ]


def test_votes_are_requests_of_their_own(tmp_path: Path) -> None:
    """Two of three for the first answer."""
    made = judge(votes=3)
    turn(tmp_path, made, PAIRS[:1])
    found = requests(tmp_path)
    assert len(found) == 3
    put(tmp_path, "r.jsonl", [openai_line(request, text) for request, text in zip(found, "mMm", strict=True)])
    done, journal = turn(tmp_path, made, PAIRS[:1])
    assert done
    assert [verdict.first for verdict in journal.verdicts.values()] == [pytest.approx(2 / 3)]


def test_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    made = judge()
    turn(tmp_path, made)
    (tmp_path / "batch" / "r.jsonl").write_text('{"custom_id": "x"\n')
    with pytest.raises(RunError, match=r"r\.jsonl, line 1: the answer is no JSON"):
        turn(tmp_path, made)


def test_results_of_other_questions_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = judge()
    turn(tmp_path, made)
    put(tmp_path, "r.jsonl", [openai_line({"custom_id": "else-1-1"})])
    turn(tmp_path, made)
    assert "1 results in batch are of no question of this evaluation" in capfd.readouterr().err


def test_anthropics_form_gives_words_only() -> None:
    with pytest.raises(ValueError, match="batch is 'anthropic', which gives words only"):
        judge("anthropic", verdict="logprobs")
