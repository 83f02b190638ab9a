"""Chainlit: its tables steps and feedbacks."""

from collections.abc import Iterator

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import messages
from kto_release.feedback.rows import RowProblem

SPOKEN = {"user_message": "user", "assistant_message": "assistant", "system_message": "system"}


def _chainlit_table(record: Record, _options: Options) -> tuple[str, object] | None:
    return ("step", record["id"]) if {"threadId", "type", "output"} <= record.keys() else None


def _chainlit(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    value = record["value"]
    if str(value) not in ("0", "1", "0.0", "1.0"):
        raise RowProblem(f"value is {value!r}, not 0 or 1")
    rated = tables.get("step", record["forId"])
    if rated is None:
        raise LeftOut(reasons.LOST)
    if rated.get("type") != "assistant_message":
        raise LeftOut(f"rating of a step of type {rated.get('type')!r}, not of an answer")
    if rated.get("isError") in (True, "true", 1):
        raise LeftOut(reasons.FAILED)
    steps = [step for step in tables.group("step", "threadId", rated["threadId"]) if step["type"] in SPOKEN]
    steps.sort(key=lambda step: str(step["createdAt"]))
    before = steps[: next(i for i, step in enumerate(steps) if step["id"] == rated["id"])]
    talk = [{"role": SPOKEN[step["type"]], "content": step["output"] or step.get("input")} for step in before]
    yield Rating(
        messages(talk), {"role": "assistant", "content": rated["output"]}, float(value) == 1,
        id=str(record.get("id", record["forId"])), conversation=str(rated["threadId"]), time=rated["createdAt"],
        subject=str(record["forId"]), comment=record.get("comment"),
    )  # fmt: skip


CHAINLIT = Source("chainlit", "Chainlit", lambda r: {"forId", "value"} <= r.keys(), _chainlit, table=_chainlit_table)
