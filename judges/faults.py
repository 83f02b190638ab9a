"""What went wrong with a request, and whether trying again can help."""

import json
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import NamedTuple

import openai

SHOWN = 200
"""Characters of a server's own words in a message."""
OUT_OF_MONEY = re.compile(r"insufficient_quota|billing|exceeded your current quota|insufficient credits", re.IGNORECASE)
RATE_LIMIT = re.compile(r"rate.?limit|too many requests|overloaded")


class Kind(Enum):
    """Of a fault."""

    PASSING = "may pass"
    QUESTION = "this question alone"
    PERMANENT = "every question"


class Fault(NamedTuple):
    """One failed request."""

    kind: Kind
    reason: str
    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    todo: str | None = None
    crowded: bool = False
    """A rate limit: it passes in its own time, and asking at once only prolongs it."""


TODO = {
    401: "check the key in the environment",
    402: "see to the account's balance",
    404: "check eval.judge.model and base_url",
}


WORDS: dict[type[BaseException], str] = {
    ConnectionRefusedError: "connection refused",
    ConnectionResetError: "connection reset",
    socket.gaierror: "no such host",
}


def classify(error: openai.OpenAIError, key: str) -> Fault:
    """What kind of fault an error is, in one line without the key."""
    if isinstance(error, openai.APITimeoutError):
        return Fault(Kind.PASSING, "no answer in time (eval.judge.timeout)")
    if isinstance(error, openai.APIConnectionError):
        return Fault(Kind.PASSING, f"no connection: {_cause(error)}")
    if isinstance(error, openai.APIStatusError):
        return _of_status(error.status_code, _said(error), str(error.code), error.response.headers, key)
    return Fault(Kind.PERMANENT, clean_words(str(error), key))


def classify_body(error: object, headers: Mapping[str, str], key: str) -> Fault | None:
    """The fault that a server put into an answer which HTTP calls a success; null where it states no status."""
    code = error.get("code") if isinstance(error, dict) else None
    status = int(code) if isinstance(code, int | str) and re.fullmatch("[45][0-9]{2}", str(code)) else None
    said = words_of(error)
    if OUT_OF_MONEY.search(f"{code} {said}"):
        status = 402
    elif status is None and RATE_LIMIT.search(f"{code} {said}".lower()):
        status = 429
    if status is None:
        return None
    return _of_status(status, said, str(code), headers, key)


def words_of(error: object) -> str:
    """What a server said, and what the provider behind it said, where it hands that on."""
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return ""
    said = [next((error[name] for name in ("message", "detail", "error") if isinstance(error.get(name), str)), "")]
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):
        said.append(metadata["raw"] if isinstance(metadata["raw"], str) else json.dumps(metadata["raw"]))
    return ": ".join(str(words) for words in said if words)


def clean_words(text: str, key: str) -> str:
    """One line, of bearable length, that any file can hold, and in which the key does not appear."""
    line = " ".join(text.replace(key, "***").encode("utf-8", "replace").decode().split())
    return line[:SHOWN] + "…" if len(line) > SHOWN else line


def _of_status(status: int, said: str, code: str, headers: Mapping[str, str], key: str) -> Fault:
    words = clean_words(said, key)
    reason = f"HTTP {status}: {words}" if words else f"HTTP {status}"
    if status == 429 and OUT_OF_MONEY.search(f"{code} {said}"):
        return Fault(Kind.PERMANENT, reason, todo=TODO[402])
    if status in (408, 409, 425, 429) or status >= 500:
        return Fault(Kind.PASSING, reason, retry_after=_retry_after(headers), crowded=status == 429)
    if status in TODO or status < 400:
        return Fault(Kind.PERMANENT, reason, todo=TODO.get(status))
    # A filter, a length, a moderation: providers have a hundred wordings. That the request itself is right, other
    # questions show.
    return Fault(Kind.QUESTION, reason)


def _said(error: openai.APIStatusError) -> str:
    """The server's explanation, where it gives one that a person can read."""
    text = (words_of(error.body) or error.response.text).strip()
    return "" if text.startswith("<") else text


def _cause(error: BaseException) -> str:
    """The innermost reason, such as "connection refused"."""
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    for kind, words in WORDS.items():
        if isinstance(inner, kind):
            return words
    return f"{type(inner).__name__}: {inner}" if str(inner) else type(inner).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from the header, which is a number or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
