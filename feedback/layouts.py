"""The layouts that feedback comes in, each turned into (prompt messages, completion, desirable).

Told apart by the columns of a row, or named by `data.format`:

    pairs     prompt, chosen, rejected           strings or message lists (Snorkel's repeat the prompt)
    labels    prompt, completion, label          TRL; also output for completion (HALOs), or messages + label
    scores    prompt, completions, scores        at least data.score_threshold is desirable
    sharegpt  conversations, chosen, rejected    {from, value} turns; or conversations + label (kto_tag)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Message = dict[str, str]

SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
LABEL_COLUMNS = ("label", "kto_tag", "desirable")
COMPLETION_COLUMNS = ("completion", "output", "response")
TURN_KEYS = ({"role", "content"}, {"from", "value"})


class Feedback(NamedTuple):
    """One completion of one prompt, and whether people want it."""

    prompt: tuple[tuple[str, str], ...]
    """(role, content) of each message; the last one is the human's."""
    completion: str
    desirable: bool

    @property
    def messages(self) -> list[Message]:
        """The prompt as messages."""
        return [{"role": role, "content": content} for role, content in self.prompt]


class RowProblem(ValueError):  # noqa: N818 - it is a problem of the row, told in its words
    """What is wrong with one row, in words that follow "row N: "."""


def detect(columns: Sequence[str]) -> str:
    """The layout that these columns make. Raises `RowProblem` with the choices where none fits."""
    has = set(columns)
    if has & {"conversations"}:
        return "sharegpt"
    if {"chosen", "rejected"} <= has:
        return "pairs"
    if {"completions", "scores"} <= has:
        return "scores"
    if has & set(LABEL_COLUMNS):
        return "labels"
    raise RowProblem(
        f"columns {', '.join(sorted(has)) or 'none'} make no known layout; expected prompt, chosen, rejected (pairs), "
        "or prompt, completion, label (labels), or prompt, completions, scores (scores), or conversations (sharegpt)"
    )


def parse(row: Mapping[str, Any], layout: str, threshold: float | None = None) -> list[Feedback]:
    """The feedback of one row. Raises `RowProblem`."""
    chosen_layout = detect(list(row)) if layout == "auto" else layout
    if chosen_layout == "pairs":
        found = _pairs(row)
    elif chosen_layout == "labels":
        found = [_labelled(row)]
    elif chosen_layout == "scores":
        found = _scored(row, threshold)
    else:
        found = _sharegpt(row)
    for feedback in found:
        _check(feedback)
    return found


def _pairs(row: Mapping[str, Any]) -> list[Feedback]:
    sides = {}
    for name in ("chosen", "rejected"):
        if name not in row:
            raise RowProblem(f"no {name!r}")
        sides[name] = _turns(row[name], name) if not isinstance(row[name], str) else row[name]
    prompt = _prompt(row, missing_ok=not isinstance(sides["chosen"], str))
    prompts: dict[str, list[Message]] = {}
    completions: dict[str, str] = {}
    for name, side in sides.items():
        prompts[name], completions[name] = _split(side, prompt, name)
    if prompts["chosen"] != prompts["rejected"]:
        raise RowProblem("chosen and rejected answer different prompts")
    return [
        _feedback(prompts["chosen"], completions["chosen"], True),
        _feedback(prompts["rejected"], completions["rejected"], False),
    ]


def _split(side: str | list[Message], prompt: list[Message] | None, name: str) -> tuple[list[Message], str]:
    """The prompt and the completion of one side: a message list may hold the whole conversation or the answer alone."""
    if isinstance(side, str):
        return prompt or [], side
    if not side or side[-1]["role"] != "assistant":
        raise RowProblem(f"{name!r} does not end with an assistant message")
    before = side[:-1]
    if prompt is not None and before and before[-len(prompt) :] != prompt:
        raise RowProblem(f"{name!r} repeats another prompt than 'prompt'")
    return before or prompt or [], side[-1]["content"]


def _labelled(row: Mapping[str, Any]) -> Feedback:
    label = next((row[name] for name in LABEL_COLUMNS if name in row), None)
    # 0 and 1 are accepted since Parquet and CSV exports often lose the type; "true", None or 0.7 are not.
    if not isinstance(label, bool) and not (isinstance(label, int) and label in (0, 1)):
        raise RowProblem(f"label is {label!r}, not true or false")
    if "messages" in row and not any(name in row for name in COMPLETION_COLUMNS):
        conversation = _turns(row["messages"], "messages")
        if not conversation or conversation[-1]["role"] != "assistant":
            raise RowProblem("'messages' does not end with an assistant message")
        return _feedback(conversation[:-1], conversation[-1]["content"], bool(label))
    column = next((name for name in COMPLETION_COLUMNS if name in row), None)
    if column is None:
        raise RowProblem("no 'completion'")
    side = row[column] if isinstance(row[column], str) else _turns(row[column], column)
    prompt, completion = _split(side, _prompt(row), column)
    return _feedback(prompt, completion, bool(label))


def _scored(row: Mapping[str, Any], threshold: float | None) -> list[Feedback]:
    if threshold is None:
        raise RowProblem("scores need data.score_threshold")
    completions, scores = row.get("completions"), row.get("scores")
    if not isinstance(completions, Sequence) or not isinstance(scores, Sequence) or len(completions) != len(scores):
        raise RowProblem("completions and scores must be lists of one length")
    if not completions:
        raise RowProblem("no completions")
    prompt = _prompt(row)
    found = []
    for completion, score in zip(completions, scores, strict=True):
        if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
            raise RowProblem(f"score {score!r} is no number")
        side = completion if isinstance(completion, str) else _turns(completion, "completions")
        found.append(_feedback(*_split(side, prompt, "completions"), score >= threshold))
    return found


def _sharegpt(row: Mapping[str, Any]) -> list[Feedback]:
    conversation = _turns(row.get("conversations"), "conversations")
    if isinstance(row.get("system"), str) and row["system"]:
        conversation = [{"role": "system", "content": row["system"]}, *conversation]
    if "chosen" in row:
        return _pairs({"prompt": conversation, "chosen": [row["chosen"]], "rejected": [row.get("rejected")]})
    return [_labelled({**row, "messages": conversation})]


def _prompt(row: Mapping[str, Any], *, missing_ok: bool = False) -> list[Message] | None:
    value = row.get("prompt")
    if value is None:
        if missing_ok:
            return None
        raise RowProblem("no prompt")
    if isinstance(value, str):
        if not value.strip():
            raise RowProblem("the prompt is empty")
        return [{"role": "user", "content": value}]
    return _turns(value, "prompt")


def _turns(value: Any, name: str) -> list[Message]:
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowProblem(f"{name!r} is {type(value).__name__}, not a list of messages")
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping) or not any(keys <= set(turn) for keys in TURN_KEYS):
            raise RowProblem(f"{name!r} holds {turn!r}, not a message with role and content")
        role, content = (turn["role"], turn["content"]) if "role" in turn else (turn["from"], turn["value"])
        if not isinstance(content, str) or not isinstance(role, str):
            raise RowProblem(f"{name!r} holds a message whose role or content is no text")
        turns.append({"role": SHAREGPT_ROLES.get(role, role), "content": content})
    return turns


def _feedback(prompt: list[Message], completion: str, desirable: bool) -> Feedback:
    return Feedback(tuple((turn["role"], turn["content"]) for turn in prompt), completion, desirable)


def _check(feedback: Feedback) -> None:
    if not feedback.prompt or not any(content.strip() for _, content in feedback.prompt):
        raise RowProblem("no prompt")
    if feedback.prompt[-1][0] != "user":
        raise RowProblem(f"the prompt ends with a message of {feedback.prompt[-1][0]!r}, not of the user")
    if not isinstance(feedback.completion, str):
        raise RowProblem(f"the completion is {type(feedback.completion).__name__}, not text")
    if not feedback.completion.strip():
        raise RowProblem(f"the {'desirable' if feedback.desirable else 'undesirable'} completion is empty")
