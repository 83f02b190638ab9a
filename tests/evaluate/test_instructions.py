"""Instructions and stored outputs: what is read, and what is refused."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from kto_release.digests import sha256_of
from kto_release.errors import DataError, HubError
from kto_release.evaluate.instructions import BASELINE_SHA256, InstructionSet, Outputs, load_instructions, load_outputs
from kto_release.evaluate.questions import Instruction
from kto_release.json_rows import read_objects
from kto_release.recipe import EvalSection

ROWS = [
    {"dataset": "helpful", "instruction": "Say hi.\n", "output": "hi", "generator": "g"},
    {"instruction": "Say bye.", "output": "", "generator": "g"},
]


def write(path: Path, rows: Any) -> Path:
    text = json.dumps(rows)
    openers = {".gz": gzip.open, ".xz": lzma.open}
    with openers.get(path.suffix, open)(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.json.xz"])
def test_a_file_plain_or_compressed(tmp_path: Path, name: str) -> None:
    """Texts are kept to the last space; the folder's name comes from the texts."""
    path = write(tmp_path / name, ROWS)
    found = load_instructions(EvalSection(prompts=str(path)))
    assert found.rows == [("Say hi.\n", "helpful", ""), ("Say bye.", "", "")]
    assert found.sha256 == sha256_of(["Say hi.\n", "Say bye."])
    assert (found.name, found.revision) == (f"instructions-{found.sha256[:8]}", None)


def test_the_first_instructions_are_a_set_of_their_own(tmp_path: Path) -> None:
    """A trial can't be taken for the whole."""
    path = write(tmp_path / "a.json", ROWS)
    found = load_instructions(EvalSection(prompts=str(path), max_instructions=1))
    assert found.rows == [("Say hi.\n", "helpful", "")]
    assert found.name == f"instructions-{sha256_of(['Say hi.' + chr(10)])[:8]}"


def test_stored_outputs(tmp_path: Path) -> None:
    """By instruction; an empty output is one."""
    found = load_outputs(write(tmp_path / "a.json", ROWS))
    assert (found.name, found.texts) == ("g", {"Say hi.\n": "hi", "Say bye.": ""})
    assert load_outputs(write(tmp_path / "b.json", [{"instruction": "a", "output": "b"}])).name == "b"


LIST = "a list of objects with 'instruction' in each, and 'output' where answers are stored"
BAD: dict[str, tuple[Any, str]] = {
    "no list": ({"a": 1}, "holds dict"),
    "empty": ([], "holds an empty list"),
    "no objects": ([ROWS[0], "text"], "a.json: not an object: row 2 (1 in all)"),
    "no instruction": ([ROWS[0], {"output": "x"}], "a.json: no text under 'instruction': row 2 (1 in all)"),
    "blank": ([{**ROWS[0], "instruction": " \n"}], "a.json: no text under 'instruction': row 1 (1 in all)"),
    "half a surrogate": ([{"instruction": "\ud800"}], "a.json: no text under 'instruction': row 1 (1 in all)"),
    "twice": ([ROWS[0], ROWS[1], ROWS[0]], "a.json: an instruction that stands twice: row 1, 3 (2 in all)"),
}


@pytest.mark.parametrize(("rows", "problem"), BAD.values(), ids=BAD)
def test_bad_instructions_are_named_by_row(tmp_path: Path, rows: Any, problem: str) -> None:
    path = write(tmp_path / "a.json", rows)
    with pytest.raises(DataError) as caught:
        load_instructions(EvalSection(prompts=str(path)))
    assert problem in str(caught.value).splitlines()[0]


@pytest.mark.parametrize("output", [None, 3, ["x"], "\udfff"])
def test_an_output_that_is_no_text_is_refused(tmp_path: Path, output: Any) -> None:
    """alpaca_eval would put the word None into the judge's prompt."""
    with pytest.raises(DataError) as caught:
        load_outputs(write(tmp_path / "a.json", [ROWS[0], {**ROWS[1], "output": output}]))
    assert str(caught.value) == f"a.json: no text under 'output': row 2 (1 in all)\n  expected: {LIST}"


def test_outputs_of_several_generators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"outputs of several generators: 'g', 'h'"):
        load_outputs(write(tmp_path / "a.json", [ROWS[0], {**ROWS[1], "generator": "h"}]))


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, not JSON, not packed as their first bytes say."""
    with pytest.raises(DataError, match="no such file"):
        read_objects(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("[{]")
    with pytest.raises(DataError, match="is no JSON"):
        read_objects(tmp_path / "a.json")
    (tmp_path / "a.json.xz").write_bytes(b"\xfd7zXZ\0 and no more")
    with pytest.raises(DataError, match="can't be read"):
        read_objects(tmp_path / "a.json.xz")


def test_alpaca_eval_without_the_hub_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what can be done instead."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else the client tries for 20 seconds
    with pytest.raises(HubError) as caught:
        load_instructions(EvalSection())
    first, second = str(caught.value).splitlines()
    assert first.startswith("tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline.json is not in the Hub's cache, and ")
    assert second == (
        "  to do: connect to the Hub once, or give eval.prompts (and eval.reference) a file in AlpacaEval's format"
    )


def test_the_official_file_has_the_digest_that_is_checked(shared_data: Path) -> None:
    """The reference's outputs, as stored by the leaderboard, are the file at the pinned revision."""
    import hashlib

    content = lzma.decompress((shared_data / "alpaca_eval" / "outputs" / "gpt4_1106_preview.json.xz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == BASELINE_SHA256


CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why, if a, b?"},
]
CHAT_TEXT = "System: Be short.\n\nUser: Hi.\n\nAssistant: Hello.\n\nUser: Why, if a, b?"
FILES = {
    "p.jsonl": '{"instruction": "One\\ntwo"}\n\n{"prompt": "Three"}\n',
    "p.csv": 'dataset,instruction\n,"One\ntwo"\n,Three\n',
    "p.tsv": 'prompt\n"One\ntwo"\nThree\n',
    "lines.json": '{"instruction": "One\\ntwo"}\n{"instruction": "Three"}\n',
    "strings.json": '["One\\ntwo", "Three"]',
    "data.json": '{"version": 2, "data": [{"prompt": "One\\ntwo"}, {"messages": [{"role": "user", "content": "Three"}]}]}',
}


@pytest.mark.parametrize("name", FILES)
def test_questions_as_people_keep_them(tmp_path: Path, name: str) -> None:
    """JSON lines, tables, lists of texts and lists under a key give the same two questions."""
    (tmp_path / name).write_text(FILES[name])
    assert [row.text for row in load_instructions(EvalSection(prompts=str(tmp_path / name))).rows] == [
        "One\ntwo",
        "Three",
    ]


def test_a_question_in_each_line(tmp_path: Path) -> None:
    """Lines of a text file; empty ones are none."""
    (tmp_path / "p.txt").write_text("\ufeffOne?\r\n\r\nTwo?")
    assert [row.text for row in load_instructions(EvalSection(prompts=str(tmp_path / "p.txt"))).rows] == [
        "One?",
        "Two?",
    ]


@pytest.mark.parametrize("row", [{"messages": CHAT}, {"prompt": CHAT}, {"system": "Be short.", "messages": CHAT[1:]}])
def test_a_conversation_keeps_its_turns(tmp_path: Path, row: dict[str, Any]) -> None:
    """The model is asked the messages; the judge and the reader see them all, each under its role."""
    [found] = load_instructions(EvalSection(prompts=str(write(tmp_path / "a.json", [row])))).rows
    assert (found.text, found.messages, found.question) == (CHAT_TEXT, CHAT, "Why, if a, b?")


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "ends with the model": ({"messages": CHAT[:3]}, "messages under 'messages' that do not end with the user's"),
    "no role": ({"messages": [{"content": "a"}]}, "a message under 'messages' whose role is none of system, user"),
    "picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "a message under 'messages' whose content is no text",
    ),
    "two questions": ({"instruction": "a", "prompt": "b"}, "two different questions under 'instruction'"),
    "two systems": ({"system": "a", "messages": CHAT}, "a second system prompt under 'system'"),
}


@pytest.mark.parametrize(("row", "problem"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_asks_nothing_is_named(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    """With its number, whatever the file."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "fine"}) + "\n" + json.dumps(row))
    with pytest.raises(DataError) as caught:
        load_instructions(EvalSection(prompts=str(path)))
    assert caught.value.problem.startswith(f"a.jsonl: {problem}")
    assert caught.value.problem.endswith(": row 2 (1 in all)")


def a_set(*texts: str) -> InstructionSet:
    return InstructionSet("own", [Instruction(text, "") for text in texts], "0", None)


def test_instructions_that_differ_in_whitespace_keep_their_own_answers() -> None:
    """Python's indentation is meaning: each text has the answer that stands under that very text."""
    one, other = "if x:\n    y\n    z", "if x:\n    y\nz"
    outputs = Outputs("m", {one: "first", other: "second"}, "0")
    assert outputs.by_place(a_set(other, one)) == ["second", "first"]


def test_other_whitespace_finds_the_one_answer_that_can_be_meant() -> None:
    """Files lose a space at the end of a line; where one instruction and one answer are left, that is no doubt."""
    assert Outputs("m", {"a  b ": "x"}, "0").by_place(a_set("a b", "c")) == ["x", None]


@pytest.mark.parametrize(
    ("texts", "asked"),
    [
        ({"a b": "x", "a b ": "y"}, ("a b",)),
        ({"a  b": "x", "a b ": "y"}, ("a b",)),
        ({"a  b": "x"}, ("a b", "a\nb")),
    ],
)
def test_answers_that_may_be_one_instructions_are_refused(texts: dict[str, str], asked: tuple[str, ...]) -> None:
    """A second answer under another spelling, and one answer for two instructions: never the last one in silence."""
    with pytest.raises(DataError, match="'m' has several outputs that may be one instruction's"):
        Outputs("m", texts, "0").by_place(a_set(*asked))


def test_an_answer_is_found_by_a_conversations_last_question() -> None:
    """Stored outputs rarely hold the conversation."""
    [row] = [Instruction(CHAT_TEXT, "", json.dumps(CHAT))]
    outputs = Outputs("m", {"Why, if a, b?": "x"}, "0")
    assert outputs.by_place(InstructionSet("own", [row], "0", None)) == ["x"]


def test_a_named_set_has_its_name_and_another_folder_for_other_texts(tmp_path: Path) -> None:
    """eval.name is in the score's name; the first so many are called so."""
    path = str(write(tmp_path / "a.json", ROWS))
    whole = load_instructions(EvalSection(prompts=path, name="forty"))
    assert (whole.name, whole.folder) == ("forty", f"forty-{whole.sha256[:8]}")
    first = load_instructions(EvalSection(prompts=path, name="forty", max_instructions=1))
    assert (first.name, first.expected) == ("forty-first-1", whole.expected)
