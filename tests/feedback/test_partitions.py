"""How rows become partitions, and what of them is left out."""

import json

import pytest

from kto_release.errors import DataError
from kto_release.feedback.left_out import LeftOut
from kto_release.feedback.partitions import find_partitions, read
from kto_release.recipe import DataSection


def write(path, first, last, extra=()):
    rows = [{"prompt": f"{path.stem}{n}", "completion": f"So {n}.", "label": n % 2 == 0} for n in range(first, last)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *extra]))
    return str(path)


def prompts(data):
    found = find_partitions(data)
    parts = [*found.iterations, *([found.held_out] if found.held_out else [])]
    return [[feedback.prompt[-1][1] for row in read(part, data) for feedback in row.feedback] for part in parts]


def test_max_rows_is_of_each_partition(tmp_path):
    """Cut parts have so many rows each; of files, a held-out share is taken from the rows that are taken at all."""
    source = write(tmp_path / "a.jsonl", 0, 30)
    assert [len(part) for part in prompts(DataSection(source=source, partitions=3, max_rows=6))] == [6, 6, 6]
    sources = [source, write(tmp_path / "b.jsonl", 0, 30)]
    for seed in range(3):
        data = DataSection(source=sources, partitions=["a", "b"], max_rows=6, held_out=0.3, seed=seed)
        a, b, held_out = prompts(data)
        assert sorted(a + b + held_out) == sorted([f"{name}{n}" for name in "ab" for n in range(6)])
        assert len(held_out) == 4


def test_bad_rows_are_told_with_their_own_numbers_and_kinds(tmp_path):
    """The first ten in full, then how many of each kind there are, and what to do."""
    bad = [{"prompt": "x", "completion": "y", "label": f"l{n}"} for n in range(11)]
    source = write(tmp_path / "a.jsonl", 0, 2, [*bad, {"prompt": "x", "completion": "", "label": True}])
    data = DataSection(source=source, partitions=["a"])
    with pytest.raises(DataError) as caught:
        prompts(data)
    lines = str(caught.value).splitlines()
    assert lines[0] == "12 of 14 rows of partition 'a' can't be used:"
    assert lines[1] == "  - a.jsonl, row 3: label is 'l0', not true or false"
    assert lines[11:] == [
        "  … and 2 more; in all 11 x label is not true or false, 1 x the desirable completion is empty",
        "  to do: mend or remove these rows; docs/data.md shows the layouts",
        "         say what each value means, for example data.labels: {good: true, bad: false}",
    ]


def test_bad_rows_can_be_skipped_and_are_counted_once(tmp_path):
    """By reason, and listed in a file; of parts that are cut from the same rows only the first tells of them."""
    extra = [{"prompt": "x", "completion": "y", "label": "maybe"}, {"prompt": "z", "label": True}]
    source = write(tmp_path / "a.jsonl", 0, 8, extra)
    data = DataSection(source=source, partitions=2, bad_rows="skip", held_out=0.25)
    found = find_partitions(data)
    counts = []
    for part in (*found.iterations, found.held_out):
        left_out = LeftOut()
        assert list(read(part, data, left_out))
        counts.append(left_out.reasons())
    assert counts == [{"label is not true or false": 1, "no 'completion'": 1}, {}, {}]
    left_out = LeftOut()
    list(read(found.iterations[0], data, left_out))
    left_out.write(tmp_path)
    assert [json.loads(line) for line in (tmp_path / "left_out.jsonl").read_text().splitlines()] == [
        {
            "where": "a.jsonl, row 9",
            "reason": "label is not true or false",
            "problem": "label is 'maybe', not true or false",
        },
        {"where": "a.jsonl, row 10", "reason": "no 'completion'", "problem": "no 'completion'"},
    ]


def test_an_id_is_shown_instead_of_the_row(tmp_path):
    """Where data.columns names it, also for rows that can't be used."""
    rows = [{"fid": "f1", "prompt": "x", "completion": "y", "label": True}, {"fid": "f2", "prompt": "x", "label": True}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSection(source=str(path), partitions=["a"], columns={"id": "fid"})
    left_out = LeftOut()
    assert [row.where for row in read(find_partitions(data).iterations[0], data, left_out)] == ["a.jsonl, id 'f1'"]
    assert [bad.where for bad in left_out.bad] == ["a.jsonl, id 'f2'"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cut_parts_and_the_held_out_share_are_disjoint_and_cover_all(tmp_path, seed):
    """Every prompt is in exactly one part or held out, and parts are of equal size but for one prompt.

    30 prompts, of which a fifth is held out: 6, and the other 24 in three parts of 8; in five of 4, 5, 5, 5 and 5.
    """
    source = write(tmp_path / "a.jsonl", 0, 30)
    for number, sizes in ((3, [8, 8, 8]), (5, [4, 5, 5, 5, 5])):
        *parts, held_out = prompts(DataSection(source=source, partitions=number, held_out=0.2, seed=seed))
        assert [len(part) for part in parts] == sizes
        assert len(held_out) == 6
        assert sorted([*held_out, *(prompt for part in parts for prompt in part)]) == sorted(f"a{n}" for n in range(30))
