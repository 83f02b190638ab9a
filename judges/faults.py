"""What went wrong with a request, and whether trying again can help."""

import re
import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import NamedTuple

import openai

SHOWN = 200
"""Characters of a server's own words in a message."""
ABOUT_THE_QUESTION = re.compile(r"content.?filter|content.?policy|context.?length|maximum context|too (?:long|large)")
OUT_OF_MONEY = re.compile(r"insufficient_quota|billing|exceeded your current quota")


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


TODO = {
    401: "check the key in the environment",
    402: "see to the account's balance",
    403: "check that the key may use this model",
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
        return _of_status(error, key)
    return Fault(Kind.PERMANENT, _clean(str(error), key))


def _of_status(error: openai.APIStatusError, key: str) -> Fault:
    status, words = error.status_code, _clean(_words(error), key)
    reason = f"HTTP {status}: {words}" if words else f"HTTP {status}"
    if status == 429 and OUT_OF_MONEY.search(f"{error.code} {words}"):
        return Fault(Kind.PERMANENT, reason, todo=TODO[402])
    if status in (408, 409, 425, 429) or status >= 500:
        return Fault(Kind.PASSING, reason, retry_after=_retry_after(error))
    if status in (400, 413, 422) and ABOUT_THE_QUESTION.search(f"{error.code} {words}".lower()):
        return Fault(Kind.QUESTION, reason)
    return Fault(Kind.PERMANENT, reason, todo=TODO.get(status, "check eval.judge.parameters"))


def _words(error: openai.APIStatusError) -> str:
    """The server's explanation, where it gives one that a person can read."""
    if isinstance(error.body, dict) and isinstance(error.body.get("message"), str):
        return str(error.body["message"])
    text = error.response.text.strip()
    return "" if text.startswith("<") else text


def _clean(text: str, key: str) -> str:
    """One line, of bearable length, in which the key does not appear."""
    line = " ".join(text.replace(key, "***").split())
    return line[:SHOWN] + "…" if len(line) > SHOWN else line


def _cause(error: BaseException) -> str:
    """The innermost reason, such as "connection refused"."""
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    for kind, words in WORDS.items():
        if isinstance(inner, kind):
            return words
    return f"{type(inner).__name__}: {inner}" if str(inner) else type(inner).__name__


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds from the header, which is a number or a date."""
    value = error.response.headers.get("retry-after")
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
