"""What an endpoint answered, read strictly: anything but log-probabilities with a letter among them is unreadable."""

import json
import math
from typing import Any, TypeGuard

from kto_release.judges.judge import Verdict
from kto_release.judges.prompt import LETTERS

SHOWN_TOKENS = 5
LEAST = -1e4
"""A log-probability whose probability is zero in any precision; servers write -9999, or numbers beyond a float."""


class Unreadable(Exception):  # noqa: N818 - what it is, not an error of ours
    """An answer that holds no verdict, and why."""


class NoCompletion(Unreadable):
    """An answer that is no chat completion at all: a gateway's page, for example, which may pass."""


def read_body(content: bytes) -> dict[str, Any]:
    """The JSON object in a response, without what JSON or UTF-8 can't hold. Raises `NoCompletion`."""
    try:
        body = _writable(json.loads(content))
    except (ValueError, RecursionError):
        shown = content[:60].decode("utf-8", "replace")
        raise NoCompletion(f"the answer is no JSON: {shown!r}") from None
    if not isinstance(body, dict):
        raise NoCompletion(f"the answer is a JSON {type(body).__name__}, not an object")
    return body


def read_error(body: dict[str, Any]) -> object:
    """The error that a server reports in an answer which HTTP calls a success; null where there is none."""
    if body.get("error"):
        return body["error"]
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice.get("error") or None if isinstance(choice, dict) else None


def _writable(value: Any) -> Any:
    """The same value as strict JSON: null for NaN and infinities, a question mark for half a surrogate pair."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_writable(item) for item in value]
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return value


def read_verdict(body: dict[str, Any]) -> Verdict:
    """The verdict in a chat completion. Raises `Unreadable`.

    All spellings of a letter count ("m", " m", …). A letter that is not among the likeliest tokens has less mass than
    the least of them, and counts as none, as in alpaca_eval.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoCompletion("the answer holds no choice")
    choice = choices[0]
    top = _likeliest(choice)
    first, second = (sum(p for token, p in top if token.strip() == letter) for letter in LETTERS)
    mass = first + second
    if mass <= 0:
        shown = ", ".join(repr(token) for token, _ in top[:SHOWN_TOKENS])
        raise Unreadable(f"no answer letter among the likeliest tokens: {shown}")
    return Verdict(first / mass, min(mass, 1.0), choice)


def read_usage(body: dict[str, Any]) -> tuple[int, int] | None:
    """Tokens read and written, by the endpoint's count; null where it gives none."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (read, written) if _is_count(read) and _is_count(written) else None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _likeliest(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """Token and probability of the likeliest first tokens."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        raise Unreadable("the answer holds no log-probabilities")
    entries = content[0].get("top_logprobs")
    if not isinstance(entries, list) or not entries:
        raise Unreadable("the answer holds no log-probabilities of the likeliest tokens")
    top = []
    for entry in entries:
        token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if isinstance(token, str) and logprob is None:
            continue  # minus infinity, as servers send it: no probability
        if not isinstance(token, str) or not isinstance(logprob, int | float) or isinstance(logprob, bool):
            raise Unreadable("the answer holds log-probabilities that are none")
        if logprob > 1e-3:
            raise Unreadable("the answer holds log-probabilities that are none")
        top.append((token, math.exp(max(logprob, LEAST))))
    return top
