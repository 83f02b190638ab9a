"""Instructions and stored outputs: what is read, and what is refused."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from kto_release.digests import sha256_of
from kto_release.errors import DataError, HubError
from kto_release.evaluate.instructions import BASELINE_SHA256, load_instructions, load_outputs
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
    assert found.rows == [("Say hi.\n", "helpful"), ("Say bye.", "")]
    assert found.sha256 == sha256_of(["Say hi.\n", "Say bye."])
    assert (found.name, found.revision) == (f"instructions-{found.sha256[:8]}", None)


def test_the_first_instructions_are_a_set_of_their_own(tmp_path: Path) -> None:
    """A trial can't be taken for the whole."""
    path = write(tmp_path / "a.json", ROWS)
    found = load_instructions(EvalSection(prompts=str(path), max_instructions=1))
    assert found.rows == [("Say hi.\n", "helpful")]
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
