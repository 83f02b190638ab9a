"""Answers of the initial model are used again, and a reference can be another run's."""

from pathlib import Path

import pytest
from evaluations import write_evaluation

from kto_release.errors import DataError
from kto_release.evaluate.baseline import pinned
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


def test_a_run_as_reference_means_what_it_was_compared_with(tmp_path: Path) -> None:
    """Name, texts and digest are those of its evaluations; a folder of several references, or of none, is refused."""
    write_evaluation(tmp_path / "run" / "a", "iteration-1", [1.2, 1.8])
    found = pinned(tmp_path / "run")
    assert (found.name, found.sha256) == ("initial", "d" * 64)
    assert found.texts == {f"Instruction {n}": f"reference answer {n}" for n in range(2)}
    with pytest.raises(DataError, match="holds no evaluation"):
        pinned(tmp_path / "none")
