"""Thoughts of the evaluated model and of the reference: no judge sees them, nothing measures them, the record keeps them."""

import json
from pathlib import Path

from judge_server import judge_server

from kto_release.evaluate.answers import stored_answers
from kto_release.evaluate.baseline import from_outputs, pairs_of
from kto_release.evaluate.instructions import Instruction, InstructionSet, load_outputs
from kto_release.judges.asking import Journal, judge_pairs
from kto_release.judges.openai import OpenAIJudge
from kto_release.judges.prompt import load_prompt
from kto_release.judges.rows import Rows, read_rows, write_rows
from kto_release.recipe import OpenAIJudge as Section


def outputs(path: Path, texts: list[str]) -> Path:
    rows = [{"instruction": f"Q{n}?", "output": text, "generator": path.stem} for n, text in enumerate(texts)]
    path.write_text(json.dumps(rows))
    return path


def test_stored_thoughts_are_left_out_before_anything_is_judged(tmp_path: Path) -> None:
    """Of both sides; what never ends is no answer and counts as cut; annotations.json keeps the model's thoughts."""
    texts = ["<think>\nLong, long thoughts.\n</think>\n\nyes", "plain", "<think>and on"]
    mine = load_outputs(outputs(tmp_path / "mine.json", texts))
    theirs = load_outputs(outputs(tmp_path / "theirs.json", ["<think>x</think>\n\nno", "other", "third"]))
    instructions = InstructionSet("own", [Instruction(f"Q{n}?", "") for n in range(3)], "0", None)
    answers = stored_answers(mine, instructions)
    assert [(one.text, one.thoughts, one.cut) for one in answers.rows] == [
        ("yes", "Long, long thoughts.", False),
        ("plain", None, False),
        ("", "and on", True),
    ]
    pairs = pairs_of(instructions, answers.rows, from_outputs(theirs, instructions, 1))
    with judge_server() as server:
        section = Section(kind="openai", model="j", base_url=server.url, verdict="logprobs")
        judged = judge_pairs(OpenAIJudge(section, load_prompt("alpaca_eval")), pairs, Journal(tmp_path / "judge"))
        assert {text for asked in server.asked[1:] for text in (asked.first, asked.second)} == {
            *("yes", "plain", ""),
            *("no", "other", "third"),
        }
    write_rows(tmp_path / "annotations.json", Rows(judged.rows, "mine", "theirs", "j"))
    read = read_rows(tmp_path / "annotations.json").rows
    assert [(row.output, row.thoughts) for row in read] == [
        ("yes", "Long, long thoughts."),
        ("plain", None),
        ("", "and on"),
    ]
