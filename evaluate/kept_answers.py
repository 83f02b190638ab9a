"""Answers of the initial model, kept by content in the user's cache: each run would draw the very same ones again.

answers/<digest of the plan but for its instructions>.jsonl   the lines of answers.jsonl, of all sets that were asked
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kto_release.digests import sha256_of
from kto_release.files import read_jsonl, write_atomically
from kto_release.models import cache_folder


def kept_answers(plan: dict[str, Any]) -> Path:
    """Where the answers of a plan are kept: weights, template, engine and sampling are its name."""
    determines = {name: value for name, value in plan.items() if name != "instructions"}
    return cache_folder() / "answers" / f"{sha256_of(determines)}.jsonl"


def reuse(kept: Path, path: Path, texts: Iterable[str]) -> int:
    """Begin `path` with what is kept of the answers to these instructions, and return how many there are.

    Nothing is done where `path` holds answers already.
    """
    if path.exists():
        return 0
    wanted = set(texts)
    lines = [json.dumps(row, ensure_ascii=False) for row in read_jsonl(kept) if row.get("instruction") in wanted]
    if lines:
        write_atomically(path, "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace"))
    return len(lines)


def keep(kept: Path, path: Path) -> None:
    """Keep the answers in `path` beside those that are kept; one instruction's sample is kept once."""
    rows = {(row["instruction"], row["sample"]): row for row in [*read_jsonl(kept), *read_jsonl(path)]}
    kept.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values())
    write_atomically(kept, text.encode("utf-8", "backslashreplace"))
