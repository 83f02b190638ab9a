"""A judge's own words and log-probabilities, taken out of whatever form they were recorded in."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MOST = 20
"""Alternatives of a token that are shown."""


class Said(NamedTuple):
    """What a judge said in one order."""

    order: str
    """reference_first, answer_first, or empty where it is not known."""
    words: list[str]
    """One for each vote."""
    letters: list[str]
    """What was read from each."""
    top: list[tuple[str, float | None]]
    """Tokens and their log-probabilities, the likeliest first; null: none at all."""


def said(raw: Any) -> list[Said]:
    """By order; empty where nothing that can be shown was recorded."""
    if isinstance(raw, Mapping) and raw and set(raw) <= {"reference_first", "answer_first"}:
        found = [_one(order, value) for order, value in raw.items()]
    else:
        found = [_one("", raw)]
    return [one for one in found if one.words or one.top or one.order]


def _one(order: str, raw: Any) -> Said:
    if not isinstance(raw, Mapping):
        return Said(order, _words([raw]), [], [])
    answers = raw.get("answers")
    words = _words(answers if isinstance(answers, list) else [raw])
    letters = raw.get("letters")
    named = [one for one in letters if isinstance(one, str)] if isinstance(letters, list) else []
    return Said(order, words, named, _top(raw.get("logprobs")))


def _words(answers: Sequence[Any]) -> list[str]:
    """Texts, or chat completions with their thoughts before what they say."""
    found = []
    for answer in answers:
        message = answer.get("message") if isinstance(answer, Mapping) else None
        held = message if isinstance(message, Mapping) else {"content": answer}
        parts = [held.get(name) for name in ("reasoning_content", "reasoning", "content")]
        text = "\n\n".join(part for part in parts if isinstance(part, str) and part)
        if text:
            found.append(text)
    return found


def _top(logprobs: Any) -> list[tuple[str, float | None]]:
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    first = content[0] if isinstance(content, Sequence) and content and not isinstance(content, str) else None
    listed = first.get("top_logprobs") if isinstance(first, Mapping) else None
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return []
    known = [item for item in listed if isinstance(item, Mapping) and isinstance(item.get("token"), str)]
    pairs = [(item["token"], _number(item.get("logprob"))) for item in known]
    return sorted(pairs, key=lambda pair: -math.inf if pair[1] is None else pair[1], reverse=True)[:MOST]


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None
