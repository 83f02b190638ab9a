"""The layouts that feedback comes in, each turned into (prompt messages, completion, desirable).

Told apart by the columns of a row that hold something, or named by `data.format`. A layout is its entry in LAYOUTS and
its function; what every layout reads besides (system, history, tools, origin) is in `_feedback`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kto_release.feedback.columns import Cells, Rules, label_text
from kto_release.feedback.messages import THOUGHTS, answer_of, json_messages, spoken, tools_of, transcript, turns
from kto_release.feedback.rows import TOOLS, Feedback, Message, RowProblem, canonical, turn_of
from kto_release.templates.rendering import role_problem

PROMPT_COLUMNS = ("prompt", "instruction", "question", "input")
TALK_COLUMNS = ("messages", "conversations")
LABEL_COLUMNS = ("label", "kto_tag", "desirable")
COMPLETION_COLUMNS = ("completion", "output", "response")
SCORE_COLUMNS = ("score", "rating")


class Parsed(NamedTuple):
    """What one row gives."""

    feedback: list[Feedback]
    unused: list[str]
    """Columns and message keys that hold no part of the conversation, and that nothing read."""
    identity: str | None
    """"id 'a7'", where data.columns names an id."""
    user: str | None = None
    """Who gave the feedback, where data.columns names a column of users, or `origin` has one."""


def parse(row: Mapping[str, Any], rules: Rules | None = None, *, typeless: bool = False) -> Parsed:
    """The feedback of one row; `typeless` where all values are text (CSV). Raises `RowProblem`."""
    rules = rules or Rules()
    cells = Cells(row, rules, typeless=typeless)
    identity = f"id {cells.take('id')!r}" if "id" in rules.columns and cells.has("id") else None
    try:
        layout = _detect(cells) if rules.layout == "auto" else rules.layout
        found = LAYOUTS[layout].parse(cells)
        user = _user(cells)
        if "comment" in cells.rules.columns:
            cells.take("comment")  # shown by `kto-release rows`
        _check_repetition(cells, found)
        cells.check_rest(KNOWN)
        for feedback in found:
            _check(feedback)
    except RowProblem as problem:
        problem.identity = identity
        raise
    return Parsed(found, cells.unused, identity, user)


def _user(cells: Cells) -> str | None:
    origin = cells.take("origin")
    if "user" in cells.rules.columns:
        return str(cells.take("user")) if cells.has("user") else None
    user = origin.get("user") if isinstance(origin, Mapping) else None
    return str(user) if user else None


def _detect(cells: Cells) -> str:
    """The layout of a row. Raises `RowProblem` with the choices where none fits."""
    filled = {name for name in cells.values if cells.has(name)}
    # A column that is null in this row counts only where those with values make no layout.
    for has in (filled, set(cells.values)):
        for name, layout in LAYOUTS.items():
            if all(has.intersection(choices) for choices in layout.needs):
                return name
    choices = ", or ".join(f"{layout.columns} ({name})" for name, layout in LAYOUTS.items())
    raise RowProblem(
        f"columns {', '.join(sorted(filled)) or 'none'} make no known layout; expected {choices}",
        "columns of no known layout",
        todo="say which column is what, for example data.columns: {prompt: question, completion: answer, label: thumb}",
    )


def _pairs(cells: Cells) -> list[Feedback]:
    sides: dict[str, str | list[Message]] = {}
    for name in ("chosen", "rejected"):
        if not cells.has(name):
            raise RowProblem(f"no {cells.called(name)}")
        sides[name] = spoken(cells, cells.take(name), name)
    prompt = _prompt(cells, missing_ok=not isinstance(sides["chosen"], str) and len(sides["chosen"]) > 1)
    prompts, answers = {}, {}
    for name, side in sides.items():
        prompts[name], answers[name] = _split(cells, side, prompt, name)
    if prompts["chosen"] != prompts["rejected"]:
        raise RowProblem("chosen and rejected answer different prompts")
    prompt = _in_context(cells, prompts["chosen"])
    tools = _tools(cells)
    return [_feedback(prompt, answers[name], tools, desirable=name == "chosen") for name in sides]


def _split(
    cells: Cells, side: str | list[Message], prompt: list[Message] | None, name: str
) -> tuple[list[Message], Message]:
    """The prompt and the answer of one side: a message list may hold the whole conversation or the answer alone."""
    if isinstance(side, str):
        return prompt or [], answer_of(cells, side)
    if not side or side[-1]["role"] != "assistant":
        raise RowProblem(f"{name!r} does not end with an assistant message")
    before = side[:-1]
    if prompt is not None and before and not _same(before[-len(prompt) :], prompt):
        if any(turn["role"] == "tool" for turn in before) and (
            "tool_calls" in before[0] or _same(before[: len(prompt)], prompt)
        ):
            raise RowProblem(
                f"{name!r} holds a call, its result and an answer: results can't be left out of what is trained",
                todo="make rows of it: the call as the answer; then the answer, with call and result in the prompt",
            )
        raise RowProblem(f"{name!r} repeats another prompt than 'prompt'")
    return before or prompt or [], side[-1]


def _same(one: list[Message], other: list[Message]) -> bool:
    return [{**m, "content": m["content"].strip()} for m in one] == [
        {**m, "content": m["content"].strip()} for m in other
    ]


def _labelled(cells: Cells) -> list[Feedback]:
    label = _label(cells)
    return [_answered(cells, label)]


def _answered(cells: Cells, desirable: bool) -> Feedback:
    """The feedback of a row with one answer, in a column of its own or at the end of a conversation."""
    talk = cells.first(TALK_COLUMNS)
    column = cells.first(COMPLETION_COLUMNS)
    if talk and column is None:
        conversation = turns(cells, cells.take(talk), talk)
        if not conversation or conversation[-1]["role"] != "assistant":
            raise RowProblem(f"{talk!r} does not end with an assistant message")
        prompt, answer = conversation[:-1], conversation[-1]
    elif column is None:
        raise RowProblem(f"no {cells.called('completion')}")
    else:
        side = spoken(cells, cells.take(column), column)
        has_own_prompt = not isinstance(side, str) and len(side) > 1
        prompt, answer = _split(cells, side, _prompt(cells, missing_ok=has_own_prompt), column)
    return _feedback(_in_context(cells, prompt), answer, _tools(cells), desirable=desirable)


def _label(cells: Cells) -> bool:
    names = [name for name in LABEL_COLUMNS if cells.has(name)]
    values = [cells.take(name) for name in names] or [None]
    meanings = {_meaning(cells, value) for value in values}
    if len(meanings) > 1:
        raise RowProblem(f"{' and '.join(names)} contradict each other")
    meaning = meanings.pop()
    if meaning is None:
        raise RowProblem(f"label {values[0]!r} is neither desirable nor undesirable, by data.labels", fault=False)
    return meaning


def _meaning(cells: Cells, label: Any) -> bool | None:
    # 0 and 1, also as floats, are accepted since tables often lose the type; "true", None or 0.7 are not.
    if cells.rules.labels:
        text = label_text(label)
        if text in cells.rules.labels:
            return cells.rules.labels[text]
        known = ", ".join(cells.rules.labels)
        raise RowProblem(
            f"label is {label!r}, none of data.labels ({known})", f"label {text[:40]!r} is none of data.labels"
        )
    if isinstance(label, int | float) and label in (0, 1):
        return bool(label)
    if cells.typeless and label is not None and label_text(label) in ("true", "false", "1", "0"):
        return label_text(label) in ("true", "1")
    todo = None if label is None else "say what each value means, for example data.labels: {good: true, bad: false}"
    raise RowProblem(f"label is {label!r}, not true or false", "label is not true or false", todo=todo)


def _threshold(cells: Cells) -> float:
    if cells.rules.threshold is None:
        raise RowProblem("scores need data.score_threshold")
    return cells.rules.threshold


def _number(cells: Cells, score: Any) -> float:
    if cells.typeless and isinstance(score, str):
        with suppress(ValueError):
            score = float(score)
    if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
        raise RowProblem(f"score {score!r} is no number", "a score is no number")
    return score


def _scored(cells: Cells) -> list[Feedback]:
    threshold = _threshold(cells)
    completions, scores = cells.take("completions"), cells.take("scores")
    if not isinstance(completions, Sequence) or not isinstance(scores, Sequence) or len(completions) != len(scores):
        raise RowProblem("completions and scores must be lists of one length")
    if not completions:
        raise RowProblem("no completions")
    prompt, tools = _prompt(cells), _tools(cells)
    found = []
    for completion, score in zip(completions, scores, strict=True):
        desirable = _number(cells, score) >= threshold
        before, answer = _split(cells, spoken(cells, completion, "completions"), prompt, "completions")
        found.append(_feedback(_in_context(cells, before), answer, tools, desirable=desirable))
    return found


def _rated(cells: Cells) -> list[Feedback]:
    column = cells.first(SCORE_COLUMNS)
    if column is None:
        raise RowProblem(f"no {cells.called('score')}")
    return [_answered(cells, _number(cells, cells.take(column)) >= _threshold(cells))]


def _sharegpt(cells: Cells) -> list[Feedback]:
    return _pairs(cells) if cells.has("chosen") else _labelled(cells)


def _prompt(cells: Cells, *, missing_ok: bool = False) -> list[Message] | None:
    column = cells.first(PROMPT_COLUMNS)
    if column is None:
        talk = cells.first(TALK_COLUMNS)
        # Beside whole conversations, messages repeat one of them (UltraFeedback): `_check_repetition` looks at them.
        if talk and not (missing_ok and talk == "messages"):
            return turns(cells, cells.take(talk), talk)
        if missing_ok:
            return None
        raise RowProblem(f"no {cells.called('prompt')}" if "prompt" in cells.rules.columns else "no prompt")
    value = cells.take(column)
    if not isinstance(value, str):
        return turns(cells, value, column)
    if not value.strip():
        raise RowProblem("the prompt is empty")
    if column == "instruction" and cells.has("input") and str(cells.take("input")).strip():
        value = f"{value}\n{cells.take('input')}"  # as LLaMA-Factory joins them
    if column == "instruction":
        cells.take("input")
    found = (
        turns(cells, value, column) if json_messages(value) else transcript(value) if _is_transcript(value) else None
    )
    return found or [{"role": "user", "content": value}]


def _is_transcript(prompt: str) -> bool:
    """A prompt that quotes a conversation is a prompt; one that ends where the assistant speaks is a conversation."""
    return prompt.startswith("\n\nHuman:") or prompt.rstrip().endswith("\nAssistant:")


def _in_context(cells: Cells, prompt: list[Message]) -> list[Message]:
    """The prompt behind the earlier turns and the system message that stand in columns of their own."""
    history = cells.take("history")
    if history:
        if not isinstance(history, str) and all(
            isinstance(turn, Sequence) and not isinstance(turn, str) for turn in history
        ):
            if not all(len(turn) == 2 for turn in history):
                raise RowProblem("'history' holds no pairs of a question and its answer")
            roles = ("user", "assistant")
            history = [{"role": r, "content": text} for turn in history for r, text in zip(roles, turn, strict=True)]
        place = 1 if prompt and prompt[0]["role"] == "system" else 0
        prompt = [*prompt[:place], *turns(cells, history, "history"), *prompt[place:]]
    system = cells.take("system")
    if system is None or (isinstance(system, str) and not system.strip()):
        return prompt
    if not isinstance(system, str):
        raise RowProblem(f"'system' is {type(system).__name__}, not text")
    if prompt and prompt[0]["role"] == "system":
        if prompt[0]["content"].strip() != system.strip():
            raise RowProblem("the column 'system' and the system message of the conversation differ")
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def _tools(cells: Cells) -> list[Any]:
    tools = cells.take("tools")
    return tools_of(tools) if tools else []


def _feedback(prompt: list[Message], answer: Message, tools: list[Any], *, desirable: bool) -> Feedback:
    offered = ((TOOLS, canonical(tools)),) if tools else ()
    beside = {key: value for key, value in answer.items() if key not in ("role", "content")}
    return Feedback(
        (*offered, *map(turn_of, prompt)), answer["content"], desirable, canonical(beside) if beside else ""
    )


def _check_repetition(cells: Cells, found: list[Feedback]) -> None:
    """A column of messages that is the prompt, or the prompt and one of its answers, says nothing new."""
    for name in TALK_COLUMNS:
        if name in cells.left():
            told = [turn_of(turn) for turn in turns(cells, cells.values[name], name)]
            prompts = [[turn_of(turn) for turn in f.messages] for f in found]
            if any(told in (own, [*own, turn_of(f.answer)]) for own, f in zip(prompts, found, strict=True)):
                cells.take(name)


def _check(feedback: Feedback) -> None:
    kind = "desirable" if feedback.desirable else "undesirable"
    if not any(turn[1].strip() for turn in feedback.prompt if turn[0] != TOOLS):
        raise RowProblem("no prompt")
    role = feedback.prompt[-1][0]
    if role not in ("user", "tool"):
        raise RowProblem(f"the prompt ends with a message of {role!r}, not of the user")
    calls = bool(feedback.beside) and "tool_calls" in feedback.answer
    if not calls and not THOUGHTS.sub("", feedback.completion).strip():
        raise RowProblem(f"the {kind} completion is empty")
    problem = role_problem(feedback.messages, prompt=True)
    if problem:
        raise RowProblem(problem)
    try:
        "".join([feedback.completion, *(turn[1] for turn in feedback.prompt)]).encode()
    except UnicodeEncodeError as error:
        raise RowProblem(
            f"a text holds {error.object[error.start]!a}, half of a character of two", "a text holds half a character"
        ) from None


class Layout(NamedTuple):
    """One layout: how it is told, and how it is read."""

    columns: str
    """Its columns in words."""
    needs: tuple[tuple[str, ...], ...]
    """One of each of these columns makes the layout."""
    parse: Callable[[Cells], list[Feedback]]


LAYOUTS = {
    "pairs": Layout("prompt, chosen, rejected", (("chosen",), ("rejected",)), _pairs),
    "scores": Layout("prompt, completions, scores", (("completions",), ("scores",)), _scored),
    "labels": Layout("prompt, completion, label", (LABEL_COLUMNS,), _labelled),
    "rated": Layout("prompt, completion, score", ((*COMPLETION_COLUMNS, *TALK_COLUMNS), SCORE_COLUMNS), _rated),
    "sharegpt": Layout("conversations", (("conversations",),), _sharegpt),
}
"""In the order in which they are looked for."""
OTHERS = ("chosen", "rejected", "completions", "system", "history", "tools", "conversation")
KNOWN = frozenset((*PROMPT_COLUMNS, *TALK_COLUMNS, *LABEL_COLUMNS, *COMPLETION_COLUMNS, *OTHERS))
"""Columns that some layout reads: where a row's own does not, they are never metadata."""
