"""Rows as they are written, and the account of what became of every record."""

import datetime as dt
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Rating
from kto_release.feedback.rows import Message, RowProblem

SALT = "KTO_RELEASE_SALT"
LATER = "superseded by a later rating of the same answer"
WITHDRAWN = "withdrawn later"
TWICE = "exported twice"


class Users:
    """Stand-ins for users: equal within an import, and among imports with one $KTO_RELEASE_SALT."""

    def __init__(self) -> None:
        given = os.environ.get(SALT)
        self.is_random = not given
        self._salt = given.encode() if given else secrets.token_bytes(32)

    def hashed(self, user: str | None) -> str | None:
        """A salted hash of a user's name or id."""
        if user is None:
            return None
        return "hmac:" + hmac.new(self._salt, user.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:24]


def row_of(rating: Rating, label: bool, source: str, users: Users) -> dict[str, Any]:
    """The row of one rating. Raises `LeftOut` where there is no text, `RowProblem` where it is no conversation."""
    check(rating.prompt, rating.answer)
    beside = {key for key in rating.answer if key not in ("role", "content")}
    said = rating.comment.strip() if isinstance(rating.comment, str) else ""
    origin = {
        "source": source,
        "id": rating.id,
        "conversation": rating.conversation,
        "user": users.hashed(rating.user),
        "model": rating.model,
        "time": iso(rating.time),
        "kind": rating.kind,
        "by": rating.by,
        **({"comment": said} if said else {}),
    }
    return {
        "prompt": rating.prompt,
        "completion": [rating.answer] if beside else rating.answer["content"],
        "label": label,
        **({"tools": rating.tools} if rating.tools else {}),
        "origin": origin,
    }


def check(prompt: list[Message], answer: Message) -> None:
    """Whether somebody asked and the assistant answered."""
    if answer.get("role") != "assistant":
        raise RowProblem(f"what is rated is of {answer.get('role')!r}, not of the assistant")
    if not answer["content"].strip() and not answer.get("tool_calls"):
        raise LeftOut(reasons.NO_TEXT)
    for turn in [*prompt, answer]:
        if not isinstance(turn["content"], str):
            raise RowProblem(f"a message of {turn['role']!r} is {type(turn['content']).__name__}, not text")
    if not prompt or all(not turn["content"].strip() for turn in prompt if turn["role"] == "user"):
        raise LeftOut("no question before the answer")
    if prompt[-1]["role"] not in ("user", "tool"):
        raise LeftOut(f"the answer follows a message of {prompt[-1]['role']!r}, not of the user")


def iso(time: Any) -> str | None:
    """A time in ISO 8601, UTC: from text, or seconds, milliseconds or nanoseconds since 1970."""
    if time is None or time == "":
        return None
    if isinstance(time, dt.datetime):
        found = time
    elif isinstance(time, int | float) or re.fullmatch(r"\d{9,19}(\.\d+)?", str(time)):
        seconds = float(time)
        while seconds > 1e11:
            seconds /= 1000
        found = dt.datetime.fromtimestamp(seconds, dt.UTC)
    else:
        try:
            found = dt.datetime.fromisoformat(str(time).strip())
        except ValueError:
            raise RowProblem(f"{time!r} is no time", "a time that can't be read") from None
    found = found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
    return found.isoformat(timespec="seconds").replace("+00:00", "Z")


class Spool:
    """Rows wait in a temporary file until it is known which of several ratings of one answer is the last."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder)  # noqa: SIM115
        self._last: dict[bytes, tuple[str, int, bool, bytes]] = {}
        self._gone: dict[int, str] = {}
        self._count = 0

    def add(self, row: dict[str, Any] | None, subject: str | None, time: Any) -> None:
        """A row, or None for a verdict that gives none but takes the place of an earlier one (a withdrawn thumb)."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False) if row is not None else ""
        at = self._count
        if row is not None:
            self._file.write(line + "\n")
            self._count += 1
        if subject is None:
            return
        key = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).digest()[:16]
        mine = (
            iso(time) or "",
            at,
            row is not None,
            hashlib.sha256(line.encode("utf-8", "surrogatepass")).digest()[:8],
        )
        before = self._last.get(key)
        # Without times the later record counts: exports go forward, or a tool's table is in the order of writing.
        later, earlier = (mine, before) if before is None or mine[0] >= before[0] else (before, mine)
        self._last[key] = later
        if earlier is not None and earlier[2]:
            same = later[2] and later[3] == earlier[3]
            self._gone[earlier[1]] = TWICE if same else LATER if later[2] else WITHDRAWN

    def rows(self, reasons: Counter[str]) -> Any:
        """The lines that count; of the others the reasons are counted."""
        self._file.seek(0)
        for at, line in enumerate(self._file):
            if at in self._gone:
                reasons[self._gone[at]] += 1
            else:
                yield line

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()
