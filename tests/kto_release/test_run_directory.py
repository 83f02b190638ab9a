"""The run directory: atomic records, journals that a kill can cut, and digests."""

import json
import os

import pytest

from kto_release.digests import weight_files, weights_digest
from kto_release.errors import RunError
from kto_release.files import append_jsonl, read_jsonl, read_record, write_atomically, write_record
from kto_release.records import Interval

INTERVAL = Interval(value=0.5, low=0.4, high=0.6, n=10, method="Wilson")


def test_a_record_comes_back(tmp_path):
    """What is written is read; where nothing is, there is no record."""
    write_record(tmp_path / "record.json", INTERVAL)
    assert read_record(tmp_path / "record.json", Interval) == INTERVAL
    assert read_record(tmp_path / "none.json", Interval) is None
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    "content", ["", '{"value": 0.5', "{}", '{"value": NaN, "low": 0, "high": 1, "n": 1, "method": "x"}']
)
def test_a_damaged_record_is_an_error(tmp_path, content):
    """A cut, incomplete or impossible record is never taken for a complete one."""
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(RunError, match="is damaged"):
        read_record(tmp_path / "record.json", Interval)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """Where the disk is full the old content stays, and no part of the new one."""
    path = tmp_path / "record.json"
    write_atomically(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_journal_cut_by_a_kill_keeps_its_whole_lines(tmp_path, cut):
    """Wherever the last line was cut, the lines before it are read, and the next one is appended after them."""
    path = tmp_path / "journal.jsonl"
    append_jsonl(path, {"row": 1, "text": "a\u2028b\r"})
    append_jsonl(path, {"row": 2, "x": 0})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    assert read_jsonl(path) == [{"row": 1, "text": "a\u2028b\r"}]
    append_jsonl(path, {"row": 2})
    assert [row["row"] for row in read_jsonl(path)] == [1, 2]


def test_a_journal_with_a_foreign_line_is_an_error(tmp_path):
    """A whole line that is no JSON object was not written by us."""
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps({"row": 1}) + "\nnot json\n")
    with pytest.raises(RunError, match="line 2: not a JSON object"):
        read_jsonl(path)


def test_the_weights_digest_sees_every_byte_and_name(tmp_path):
    """Another byte or another name gives another digest; other files don't count."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = weights_digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert weights_digest(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"weighty")
    assert weights_digest(tmp_path) != first
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert weights_digest(tmp_path) != first
    with pytest.raises(RunError, match="no weights in"):
        weights_digest(tmp_path / "nothing")


def test_weights_that_are_there_twice_count_once(tmp_path):
    """A model in several files may hold everything once more in a form that transformers does not read."""
    for name in ("model-00001-of-00002", "model-00002-of-00002", "consolidated"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    names = {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert [path.name for path in weight_files(tmp_path)] == sorted(names.values())
    before = weights_digest(tmp_path)
    (tmp_path / "consolidated.safetensors").unlink()
    assert weights_digest(tmp_path) == before
    (tmp_path / "model.safetensors").touch()
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
