"""What an endpoint answered, read strictly: from the letters' probabilities or from the words, or it is unreadable."""

import json
import math
from typing import Any, TypeGuard

from kto_release.judges.judge import Verdict
from kto_release.judges.prompt import Letters
from kto_release.judges.words import read_letter, shortened
from kto_release.templates.thoughts import without_thoughts

SHOWN_TOKENS = 5
LEAST = -1e4
"""A log-probability whose probability is zero in any precision; servers write -9999, or numbers beyond a float."""
NOTHING = -9998
"""Log-probabilities below this are placeholders for none."""
MOST = 1.02
"""What probabilities may add up to, as they are rounded."""
LARGEST_BOUND = 0.02
"""Share of the verdict that a letter may have which was not sent: more would make the verdict a guess."""


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


def read_verdict(body: dict[str, Any], letters: Letters, asked: int) -> Verdict:
    """The verdict in the log-probabilities of a completion's first token. Raises `Unreadable`.

    All spellings of a letter count ("m", " m", …). A letter that is not among the likeliest tokens has less mass than
    the least of them, and counts as none, as in alpaca_eval; where fewer than the `asked` number of alternatives were
    sent, that can be half of all, and is then no verdict. Half of a draw's mass is the first answer's.
    """
    choice = _choice(body)
    top = _likeliest(choice)
    masses = [sum(p for token, p in top if token.strip() == letter) for letter in letters.all]
    mass = sum(masses)
    if mass <= 0:
        shown = ", ".join(repr(token) for token, _ in top[:SHOWN_TOKENS])
        raise Unreadable(f"no answer letter among the likeliest tokens: {shown}")
    if min(masses) == 0 and len(top) < asked:
        bound = min(*(p for _, p in top), max(0.0, 1 - sum(p for _, p in top)))
        if bound > LARGEST_BOUND * (mass + bound):
            missing = letters.all[masses.index(0)]
            raise Unreadable(
                f"{len(top)} of {asked} alternatives were sent, and {missing!r}, which is not among them, may have "
                f"up to {bound:.0%}"
            )
    first = (masses[0] + (masses[2] / 2 if len(masses) > 2 else 0.0)) / mass
    return Verdict(first, min(mass, 1.0), choice)


def read_words(body: dict[str, Any], letters: Letters) -> Verdict:
    """The verdict in the words of a completion, thoughts left out. Raises `Unreadable`."""
    choice = _choice(body)
    text = _content(choice)
    cut = choice.get("finish_reason") == "length"
    said = without_thoughts(text)
    if not said.closed or (cut and not said.text.strip()):
        raise Unreadable("the answer ends before a verdict, at the most tokens that it may have")
    letter = read_letter(said.text, letters, cut=cut)
    if letter is None:
        if cut:
            raise Unreadable("the answer ends before a verdict, at the most tokens that it may have")
        if not said.text.strip():
            raise Unreadable("the answer holds no text")
        raise Unreadable(f"no one verdict ({letters}) in {shortened(said.text)!r}")
    return Verdict(letters.share(letter), None, {"letters": [letter], "answers": [choice]})


def read_served(body: dict[str, Any]) -> dict[str, str] | None:
    """What answered, by its own word."""
    keys = {"model": "model", "fingerprint": "system_fingerprint", "provider": "provider"}
    found = {name: body[key] for name, key in keys.items() if isinstance(body.get(key), str) and body[key]}
    return found or None


def read_usage(body: dict[str, Any]) -> tuple[int, int] | None:
    """Tokens read and written, by the endpoint's count; null where it gives none."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (read, written) if _is_count(read) and _is_count(written) else None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoCompletion("the answer holds no choice")
    choice: dict[str, Any] = choices[0]
    return choice


def _content(choice: dict[str, Any]) -> str:
    """The text of an answer, whole or in parts; what is thought in a field or a part of its own is no part of it."""
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else choice.get("text")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") in (None, "text")]
        return "".join(part for part in parts if isinstance(part, str))
    if isinstance(content, str):
        return content
    refusal = message.get("refusal") if isinstance(message, dict) else None
    if choice.get("finish_reason") == "length":
        return ""
    raise Unreadable(f"the answer holds no text{f': {refusal}' if isinstance(refusal, str) and refusal else ''}")


def _likeliest(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """Token and probability of the likeliest first tokens."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        raise Unreadable("the answer holds no log-probabilities")
    entries = content[0].get("top_logprobs")
    if not isinstance(entries, list) or not entries:
        raise Unreadable("the answer holds no log-probabilities of the likeliest tokens")
    top, known = [], []
    for entry in entries:
        token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if isinstance(token, str) and logprob is None:
            continue  # minus infinity, as servers send it: no probability
        if not isinstance(token, str) or not isinstance(logprob, int | float) or isinstance(logprob, bool):
            raise Unreadable("the answer holds log-probabilities that are none")
        if logprob > 1e-3:
            raise Unreadable("the answer holds log-probabilities that are none")
        top.append((token, math.exp(max(logprob, LEAST))))
        known.append(logprob)
    if known and max(known) == 0 and sum(logprob > NOTHING for logprob in known) == 1:
        raise Unreadable("the log-probabilities are made up: 0 for one token, and nothing for any other")
    if sum(p for _, p in top) > MOST:
        raise Unreadable("the log-probabilities are made up: together they are more than certain")
    return top
