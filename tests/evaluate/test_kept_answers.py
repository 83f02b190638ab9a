"""Answers of the initial model are used again."""

from pathlib import Path

import pytest

from kto_release.evaluate.kept_answers import keep, kept_answers, reuse
from kto_release.files import append_jsonl, read_jsonl


def row(text: str, sample: int = 0) -> dict[str, object]:
    return {"instruction": text, "sample": sample, "output": f"to {text}"}


def test_answers_are_used_again_for_the_instructions_that_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever set they were made for; the plan but for its instructions is their name; none is kept twice."""
    monkeypatch.setenv("KTO_RELEASE_CACHE", str(tmp_path / "cache"))
    plan = {"model": "a", "instructions": "1"}
    kept = kept_answers(plan)
    assert kept == kept_answers({**plan, "instructions": "2"}) != kept_answers({**plan, "model": "b"})
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for text in ("one", "two"):
        append_jsonl(first, row(text))
    keep(kept, first)
    keep(kept, first)
    assert reuse(kept, second, ["two", "three"]) == 1
    assert read_jsonl(second) == [row("two")]
    append_jsonl(second, row("three"))
    keep(kept, second)
    assert [one["instruction"] for one in read_jsonl(kept)] == ["one", "two", "three"]
    assert reuse(kept, second, ["one"]) == 0
