"""The card of the model that a release takes the place of: one key is set, and every other byte stays as it is."""

import json
import re

import yaml

from kto_release.yaml_text import parse_yaml

FRONT = re.compile(r"\A(\ufeff?---[ \t]*\r?\n)(.*?)(^---[ \t]*$)", re.DOTALL | re.MULTILINE)
LINE = re.compile(r"^new_version[ \t]*:[^\r\n]*", re.MULTILINE)


def with_successor(card: str, repo_id: str) -> str:
    """The card with `new_version: repo_id` in its metadata.

    Raises `ValueError` where the metadata is no YAML that can be changed in one line.
    """
    end = "\r\n" if "\r\n" in card else "\n"
    line = f"new_version: {repo_id}"
    found = FRONT.match(card)
    if found is None:
        return f"---{end}{line}{end}---{end}" + (f"{end}{card}" if card.strip() else "")
    opening, front, closing = found.groups()
    before = _metadata(front)
    if before.get("new_version") == repo_id:
        return card
    if "new_version" in before:
        changed = LINE.sub(lambda _: line, front, count=1)
    else:
        changed = front + ("" if front.endswith("\n") or not front else end) + line + end
    if _metadata(changed) != {**before, "new_version": repo_id}:
        raise ValueError("new_version can't be set in the metadata of its card without changing more")
    return opening + changed + closing + card[found.end() :]


def _metadata(front: str) -> dict[str, object]:
    try:
        plain = parse_yaml(front)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 2}" if mark is not None else ""
        raise ValueError(f"the metadata of its card is not valid YAML{where}: mend it, then publish again") from None
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise ValueError(f"the metadata of its card is {json.dumps(plain, default=str)[:40]}, no mapping")  # noqa: TRY004
    return plain
