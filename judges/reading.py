"""What an endpoint answered, read strictly: anything but log-probabilities with a letter among them is unreadable."""

import json
import math
from typing import Any

from kto_release.judges.judge import Verdict
from kto_release.judges.prompt import LETTERS

SHOWN_TOKENS = 5


class Unreadable(Exception):  # noqa: N818 - what it is, not an error of ours
    """An answer that holds no verdict, and why."""


def read_body(content: bytes) -> dict[str, Any]:
    """The JSON object in a response. Raises `Unreadable`."""
    try:
        body = json.loads(content)
    except ValueError:
        shown = content[:60].decode("utf-8", "replace")
        raise Unreadable(f"the answer is no JSON: {shown!r}") from None
    if not isinstance(body, dict):
        raise Unreadable(f"the answer is a JSON {type(body).__name__}, not an object")
    return body


def read_verdict(body: dict[str, Any]) -> Verdict:
    """The verdict in a chat completion. Raises `Unreadable`.

    All spellings of a letter count ("m", " m", …). A letter that is not among the likeliest tokens has less mass than
    the least of them, and counts as none, as in alpaca_eval.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Unreadable("the answer holds no choice")
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
    return (read, written) if isinstance(read, int) and isinstance(written, int) else None


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
        number = float(logprob) if isinstance(logprob, int | float) and not isinstance(logprob, bool) else math.nan
        if not (isinstance(token, str) and number <= 1e-3):  # NaN compares as false
            raise Unreadable("the answer holds log-probabilities that are none")
        top.append((token, math.exp(number)))
    return top
