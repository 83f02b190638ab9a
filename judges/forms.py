"""How a judge is asked: for the log-probabilities of a letter, or for words. What is sent beside model and messages."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from kto_release.judges.prompt import Letters
from kto_release.recipe import OpenAIJudge as Section

LOGPROBS: dict[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": 20}
"""AlpacaEval 2.0's request, with more log-probabilities than its five, so that both letters are among them. No
temperature: the API's own, 1, is AlpacaEval's, and newer models refuse to be told."""
TEXT_TOKENS = 2048
"""Most tokens of an answer in words, thoughts included, where the recipe says nothing."""
WRITTEN = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Parameters that say how many tokens an answer may have, thoughts included."""
LEAST_COMPLETION = 16
"""What models that take max_completion_tokens want at least."""


class Form(NamedTuple):
    """A way to ask."""

    words: bool
    request: dict[str, Any]

    @property
    def written(self) -> int:
        """Most tokens of an answer."""
        return max((self.request[name] for name in WRITTEN if name in self.request), default=1)


def form_of(section: Section, letters: Letters, *, words: bool) -> Form:
    """The recipe's request; null in its parameters takes one of our own out."""
    own = {key: value for key, value in section.parameters.items() if key != "extra_body"}
    given = {**own, **(section.parameters.get("extra_body") or {})}  # type: ignore[dict-item]
    request: dict[str, Any] = {"max_tokens": TEXT_TOKENS} if words else dict(LOGPROBS)
    if section.max_tokens is not None:
        request["max_tokens"] = section.max_tokens
    if section.reasoning_effort is not None:
        request["reasoning_effort"] = section.reasoning_effort
    if section.chat_template_kwargs:
        request["chat_template_kwargs"] = section.chat_template_kwargs
    if words and section.structured:
        request["response_format"] = _schema(letters)
    request |= given
    if any(name in given for name in WRITTEN[1:]) and "max_tokens" not in given:
        del request["max_tokens"]
    if words:  # of no use then, and refused by some
        request.pop("logprobs", None)
        request.pop("top_logprobs", None)
    return Form(words, {key: value for key, value in request.items() if value is not None})


def wants_words(section: Section) -> bool:
    """Whether the recipe leaves nothing but words: it says so, asks for votes or JSON, or for no log-probabilities."""
    given = {**section.parameters, **(section.parameters.get("extra_body") or {})}  # type: ignore[dict-item]
    without = given.get("logprobs", True) in (None, False)
    return (
        section.verdict == "text"
        or section.batch == "anthropic"
        or (section.verdict == "auto" and (section.votes > 1 or section.structured or without))
    )


def adapted(form: Form, section: Section, reason: str) -> Form | None:
    """The form that an endpoint asks for when it refuses one; null where it asks for none that we know.

    What the recipe sets itself is never changed.
    """
    request = dict(form.request)
    name = next((name for name in WRITTEN if name in request), None)
    fixed = {*section.parameters, *(section.parameters.get("extra_body") or {})}  # type: ignore[misc]
    least = re.search(r"(?:>=|at least|minimum (?:value )?(?:of|is)) ?(\d+)", reason)
    most = re.search(r"(?:more than|at most|maximum (?:value )?(?:of|is)|<=) ?(\d+)", reason)
    if "max_tokens" in request and "max_tokens" not in fixed and "max_completion_tokens" in reason:
        request["max_completion_tokens"] = max(request.pop("max_tokens"), LEAST_COMPLETION)
    elif least and name and name not in fixed and "token" in reason and request[name] < int(least[1]):
        request[name] = int(least[1])
    elif most and "logprobs" in reason and 0 < int(most[1]) < request.get("top_logprobs", 0):
        request["top_logprobs"] = int(most[1])
    else:
        return None
    return Form(form.words, request)


def _schema(letters: Letters) -> Mapping[str, Any]:
    schema = {
        "type": "object",
        "properties": {"better": {"type": "string", "enum": list(letters.all)}},
        "required": ["better"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
