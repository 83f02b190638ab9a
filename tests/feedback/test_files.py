"""Files and folders as tools leave them, and what is said of those that are broken."""

import csv
import gzip
import json

import pytest
import zstandard

from kto_release.errors import DataError
from kto_release.feedback.files import rows_of
from kto_release.feedback.partitions import find_partitions, input_digests, read
from kto_release.feedback.rows import RowProblem
from kto_release.feedback.sources import files_of
from kto_release.recipe import DataSection

ROWS = [{"prompt": f"Why {n}?", "completion": f"So {n}.", "label": n % 2 == 0} for n in range(6)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def prompts(source, **keys):
    data = DataSection(source=str(source), **{"partitions": 1, **keys})
    return [
        [feedback.prompt[-1][1] for row in read(part, data) for feedback in row.feedback]
        for part in find_partitions(data).iterations
    ]


def told(step):
    with pytest.raises(DataError) as caught:
        step()
    return caught.value.problem


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.JSONL", LINES),
        ("a.ndjson", LINES),
        ("a.json", LINES),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json", json.dumps({"about": "x", "data": ROWS}).encode()),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n\r\n")),
        ("a.json.gz", gzip.compress(LINES)),
        ("a.jsonl.gz", gzip.compress(LINES[:50]) + gzip.compress(LINES[50:])),
        ("a.ndjson.zst", zstandard.compress(LINES)),
        ("a.jsonl.zst", zstandard.compress(LINES[:50]) + zstandard.compress(LINES[50:])),
        ("feedback [v2].jsonl", LINES),
    ],
)
def test_one_set_of_rows_in_many_files(tmp_path, name, content):
    """Endings in any case, a byte-order mark, blank lines, packed in one part or two, brackets in the name."""
    (tmp_path / name).write_bytes(content)
    assert prompts(tmp_path / name) == [[row["prompt"] for row in ROWS]]


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_tables_of_text(tmp_path, name, delimiter):
    """Cells with line ends and quotes are whole, an empty cell is null, a label's text is one, and so is a number's: pandas' index too."""
    rows = [{**ROWS[0], "completion": 'Two\nlines, "quoted"', "kto_tag": ""}, *ROWS[1:]]
    rows = [{"": n, "latency": 0.5, **row} for n, row in enumerate(rows)]
    with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["", "latency", *ROWS[0], "kto_tag"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    data = DataSection(source=str(tmp_path / name), partitions=1)
    (part,) = find_partitions(data).iterations
    found = [feedback for row in read(part, data) for feedback in row.feedback]
    assert (found[0].completion, [f.desirable for f in found]) == ('Two\nlines, "quoted"', [r["label"] for r in ROWS])


def test_a_cut_zst_is_an_error_where_its_cut_meets_a_line_end(tmp_path):
    """Writers that flush each line make files that look whole wherever they are cut."""
    packer = zstandard.ZstdCompressor().compressobj()
    blocks = [
        packer.compress(line) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for line in LINES.splitlines(True)
    ]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(blocks[:3]))
    assert told(lambda: list(rows_of(tmp_path / "a.jsonl.zst"))) == (
        "'a.jsonl.zst' is damaged or cut behind row 3: the last Zstandard frame is not complete"
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", LINES + b'{"prompt": "caf\xe9"}\n', "a.jsonl, row 7: not UTF-8: byte 16 of the line is 0xe9"),
        ("a.jsonl", b"\n" + LINES + b'{"prompt": \n', "a.jsonl, row 8: not valid JSON: "),
        ("a.jsonl", b"[1]\n", "a.jsonl, row 1: '[1]\\n' is no JSON object"),
        ("a.jsonl", LINES.decode().encode("utf-16"), "'a.jsonl' is UTF-16"),
        ("a.jsonl.zst", LINES, "'a.jsonl.zst' is damaged or cut behind row 0: "),
        ("a.jsonl.gz", gzip.compress(LINES)[:-9], "'a.jsonl.gz' is damaged or cut behind row 6: "),
        ("a.json", b'[{"prompt": 1', "'a.json' is not valid JSON: "),
        ("a.json", b'{"prompt": 1}', "'a.json' holds no list of rows"),
        ("a.csv", b"prompt,label\nx,1\ny,1,2\n", "a.csv, row 2 (line 3): 3 cells under 2 columns"),
        ("a.csv", b"prompt,prompt\nx,1\n", "'a.csv' has two columns 'prompt'"),
        ("a.csv", b'prompt,label\n"x,1\n', "a.csv, line 2: unexpected end of data"),
        ("a.parquet", b"PAR1", "'a.parquet' is no Parquet file: "),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, name, content, words):
    """The file is named, and the row where it is one row's fault: its own number, blank lines counted."""
    (tmp_path / name).write_bytes(content)
    assert told(lambda: list(rows_of(tmp_path / name))).startswith(words)


def test_folders_as_tools_leave_them(tmp_path):
    """What describes the data is passed over, shards are one split, and a clone's folders are searched."""
    hub = tmp_path / "hub"
    (hub / "data").mkdir(parents=True)
    (hub / "dataset_info.json").write_text('{"features": {}}')
    (hub / "feedback.jsonl.import.json").write_text("{}")
    for number in (0, 1):
        lines = LINES.splitlines(True)[3 * number : 3 * number + 3]
        (hub / "data" / f"train-0000{number}-of-00002.jsonl").write_bytes(b"".join(lines))
    (hub / "data" / "test-00000-of-00001.jsonl").write_bytes(b'{"prompt": "T?", "completion": "t", "label": true}\n')
    everything = [row["prompt"] for row in ROWS]
    assert prompts(hub, partitions=["train", "test"]) == [everything, ["T?"]]
    assert prompts(hub, partitions=["data/train-*"]) == [everything]
    assert prompts(hub) == [everything]
    assert prompts(hub, split="test") == [["T?"]]
    assert prompts(tmp_path, data_dir="hub", partitions=["test"]) == [["T?"]]
    assert told(lambda: prompts(hub, partitions=["valid"])) == "no file for the partition 'valid'"


def test_what_datasets_saved_to_disk(tmp_path):
    """One split, or a set of them by their names; a change of it is noticed."""
    import datasets

    datasets.disable_progress_bars()
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    assert prompts(tmp_path / "one") == [[row["prompt"] for row in ROWS]]
    datasets.DatasetDict({"train": saved, "test": saved.select([5])}).save_to_disk(str(tmp_path / "two"))
    assert prompts(tmp_path / "two", partitions=["test", "train"])[0] == ["Why 5?"]
    part = find_partitions(DataSection(source=str(tmp_path / "two"), partitions=["test"])).iterations[0]
    before = input_digests(part)
    datasets.DatasetDict({"train": saved, "test": saved.select([4])}).save_to_disk(str(tmp_path / "two"))
    assert input_digests(part) != before


def test_two_files_of_one_name_are_two(tmp_path):
    """They are named with as much of their folders as tells them apart, in digests and in what is said of rows."""
    for folder, line in (("a", b'{"prompt": "x"}\n'), ("b", LINES)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_bytes(line)
    data = DataSection(source=[str(tmp_path / "a"), str(tmp_path / "b")], partitions=1, columns={"label": "prompt"})
    assert [source.name for source in files_of(data)] == ["a/train.jsonl", "b/train.jsonl"]
    data = data.model_copy(update={"columns": {}})
    assert "a/train.jsonl, row 1: columns prompt make no known layout" in told(lambda: find_partitions(data))
    names = DataSection(source=str(tmp_path), partitions=["train.jsonl"])
    assert list(input_digests(find_partitions(names).iterations[0])) == ["a/train.jsonl", "b/train.jsonl"]


def test_names_with_dots_and_a_home_folder(tmp_path, monkeypatch):
    """A partition may be named by everything before the ending, and ~ is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for month, row in (("05", 0), ("06", 1)):
        (tmp_path / f"feedback.2024.{month}.jsonl").write_bytes(LINES.splitlines(True)[row])
    assert prompts("~", partitions=["feedback.2024.06", "feedback.2024.05"]) == [["Why 1?"], ["Why 0?"]]


@pytest.mark.parametrize("source", ["./exprt", "exprt/", "exports/2026/05"])
def test_a_mistyped_folder_is_no_hub_data_set(source):
    """What can only be a path is looked for here."""
    assert told(lambda: prompts(source)) == f"no such feedback: '{source}'"


def test_a_problem_is_one_of_its_kind():
    """Problems are counted by what is wrong, not by the value that is wrong."""
    assert (RowProblem("label is 7", "a label").kind, RowProblem("no prompt").kind) == ("a label", "no prompt")
