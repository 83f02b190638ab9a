"""Argilla: `Dataset.records.to_json()`, or the flat rows of `to_datasets()`, which also say what was only a draft."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import assistant, corrected, messages, user
from kto_release.feedback.rows import Message, RowProblem


def _is_rated(record: Record) -> bool:
    return ("fields" in record and "responses" in record) or any(name.endswith(".responses") for name in record)


def _read(record: Record, _tables: Tables, options: Options) -> Iterator[Rating | LeftOut]:
    is_flat = "responses" not in record
    fields = record if is_flat else record["fields"]
    questions = _flat(record) if is_flat else _nested(record)
    if options.score is not None:
        questions = {options.score: questions.get(options.score, [])}
    given = {name: answers for name, answers in questions.items() if answers}
    if not given:
        raise LeftOut(reasons.UNRATED)
    prompt, answer = _sides(fields, options)
    for name, answers in given.items():
        try:
            yield from _question(record, name, answers, prompt, answer, options)
        except LeftOut as left_out:
            yield left_out


def _question(
    record: Record, name: str, answers: list[tuple[Any, str]], prompt: list[Message], answer: Message, options: Options
) -> Iterator[Rating]:
    value = _agreed([value for value, _ in answers])
    people = {who for _, who in answers}
    base = Rating(
        prompt, answer, value,
        id=str(record.get("id", "")),
        user=people.pop() if len(people) == 1 else None,
        kind="label",
        name=name,
        is_scale=True,
    )  # fmt: skip
    if name == options.columns.get("correction"):
        yield from corrected(base._replace(name=""), assistant(value))
        return
    if isinstance(value, list | dict):
        raise RowProblem(f"question {name!r} is a ranking or spans: its values are no rating of one answer")
    yield base


def _agreed(values: list[Any]) -> Any:
    """What most annotators say. Raises `LeftOut` for a draw."""
    counts = Counter(map(repr, values)).most_common()
    if len(counts) > 1 and counts[0][1] == counts[1][1]:
        raise LeftOut("annotators disagree, without a majority")
    return next(value for value in values if repr(value) == counts[0][0])


def _nested(record: Record) -> dict[str, list[tuple[Any, str]]]:
    return {
        name: [
            (answer["value"], str(answer.get("user_id", "")))
            for answer in answers
            if answer.get("status", "submitted") == "submitted"
        ]
        for name, answers in (record["responses"] or {}).items()
    }


def _flat(record: Record) -> dict[str, list[tuple[Any, str]]]:
    found = {}
    for column, values in record.items():
        if not column.endswith(".responses"):
            continue
        status = record.get(f"{column}.status") or ["submitted"] * len(values or [])
        users = record.get(f"{column}.users") or [""] * len(values or [])
        if not len(values or []) == len(status) == len(users):
            raise RowProblem(f"{column!r}, its users and its status are of different lengths")
        found[column.removesuffix(".responses")] = [
            (value, str(who)) for value, who, how in zip(values or [], users, status, strict=True) if how == "submitted"
        ]
    return found


def _sides(fields: Record, options: Options) -> tuple[list[Message], Message]:
    asked, answered = options.columns.get("prompt", "prompt"), options.columns.get("completion", "response")
    for name, what in ((asked, "prompt"), (answered, "completion")):
        if name not in fields:
            raise RowProblem(
                f"no field {name!r} for the {what}; there are {', '.join(map(repr, sorted(fields)))}",
                f"no field {name!r}",
                todo=f"name it: --column {what}=FIELD",
            )
    question, reply = fields[asked], fields[answered]
    prompt = user(question) if isinstance(question, str) else messages(question, asked)
    if isinstance(reply, str):
        return prompt, assistant(reply)
    found = messages(reply, answered)
    if len(found) != 1:
        raise RowProblem(f"{answered!r} holds {len(found)} messages, not one")
    return prompt, found[0]


ARGILLA = Source("argilla", "Argilla", _is_rated, _read)
