"""Texts, messages and responses of exports as prompts and answers."""

from collections.abc import Iterable, Mapping
from typing import Any

from kto_release.feedback.columns import Cells, Rules
from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Rating
from kto_release.feedback.messages import turns
from kto_release.feedback.rows import Message, RowProblem

TEXT_PARTS = {"text", "input_text", "output_text", "thinking", "reasoning"}


def messages(value: Any, name: str = "messages") -> list[Message]:
    """Messages as training reads them. Raises `LeftOut` for what is no text, `RowProblem` for what is no message."""
    for turn in value if isinstance(value, list) else [value]:
        content = turn.get("content") if isinstance(turn, Mapping) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, Mapping) and part.get("type", "text") not in TEXT_PARTS:
                raise LeftOut(reasons.TOOL_PART if "tool" in str(part["type"]) else reasons.HIDDEN)
    return turns(Cells({}, Rules()), value, name)


def user(text: Any) -> list[Message]:
    """The conversation that is one question."""
    return [{"role": "user", "content": "" if text is None else text}]


def assistant(text: Any) -> Message:
    """An answer that is text."""
    if text is None:
        raise LeftOut(reasons.NO_TEXT)
    if not isinstance(text, str):
        raise RowProblem(f"the answer is {type(text).__name__}, not text")
    return {"role": "assistant", "content": text}


def choice(response: Any) -> tuple[Message, str | None]:
    """The answer in a response of OpenAI's API, and the model that gave it. Raises `LeftOut` where it is unfinished."""
    if not isinstance(response, Mapping) or not response.get("choices"):
        raise LeftOut(reasons.FAILED if isinstance(response, Mapping) and response.get("error") else reasons.NO_TEXT)
    if len(response["choices"]) > 1:
        raise RowProblem("the response has several choices, and the rating does not say which one it is of")
    found = response["choices"][0]
    if found.get("finish_reason") in ("length", "content_filter"):
        raise LeftOut(reasons.UNFINISHED)
    raw = {key: value for key, value in found["message"].items() if key not in ("annotations", "audio", "refusal")}
    if found["message"].get("refusal"):
        raw["content"] = raw.get("content") or found["message"]["refusal"]
    if found["message"].get("audio"):
        raise LeftOut(reasons.HIDDEN)
    return messages([raw])[0], response.get("model")


def corrected(rating: Rating, better: Message) -> Iterable[Rating]:
    """The two ratings that a correction makes: the better answer, and the one that it takes the place of."""
    if better == rating.answer:
        raise LeftOut("correction that changes nothing")
    subject = rating.subject or rating.id
    yield rating._replace(answer=better, value=True, kind="correction", model=None, subject=f"{subject} better")
    yield rating._replace(value=False, kind="correction", subject=f"{subject} corrected")


def text_of(value: Any) -> str | None:
    """An id as text; None stays None."""
    return None if value is None or value == "" else str(value)
