"""The examples of docs/data.md, read as the page says."""

import re
from collections import Counter
from pathlib import Path

import yaml

from kto_release.feedback.left_out import LeftOut
from kto_release.feedback.partitions import find_partitions, read
from kto_release.recipe import DataSection

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
EXAMPLE = re.compile(r"```json\n(.*?)```\n(?:```yaml\n(.*?)```\n)?```text\n(.*?)```", re.DOTALL)


def shown(folder, rows, keys):
    path = folder / "rows.jsonl"
    path.write_text(rows, encoding="utf-8")
    data = DataSection(source=str(path), partitions=["rows"], **(yaml.safe_load(keys) if keys else {}))
    (part,) = find_partitions(data).iterations
    left_out = LeftOut()
    lines = []
    for row in read(part, data, left_out):
        for found in row.feedback:
            label = "liked" if found.desirable else "disliked"
            prompt = " | ".join(f"{message['role']}: {message['content']}" for message in found.messages)
            lines.append(f"{row.where.removeprefix('rows.jsonl, ')}: {label}: {prompt} | {found.completion}\n")
    for bad in left_out.bad:
        kind = "error" if bad.fault else "left out"
        lines.append(f"{bad.where.removeprefix('rows.jsonl, ')}: {kind}: {bad.problem}\n")
    if left_out.unused:
        counts = Counter(left_out.unused)
        lines.append("not read: " + ", ".join(f"{name} {counts[name]}" for name in sorted(counts)) + "\n")
    return "".join(lines)


def test_the_page_says_what_is_read(tmp_path):
    """Every example gives what stands below it."""
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(examples) == 4
    assert [shown(tmp_path, rows, keys) for rows, keys, _ in examples] == [text for _, _, text in examples]
