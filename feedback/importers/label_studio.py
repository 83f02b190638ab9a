"""Label Studio: the JSON export. What the columns of a task mean is the project's: --column says it."""

from collections.abc import Iterator, Mapping
from typing import Any

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import assistant, corrected, messages, text_of, user
from kto_release.feedback.rows import Message, RowProblem


def _refusal(record: Record) -> str | None:
    if "annotation_id" in record and "annotator" in record:
        return "JSON_MIN and CSV flatten the annotations: export the project as JSON"
    return None


def _read(record: Record, _tables: Tables, options: Options) -> Iterator[Rating | LeftOut]:
    if not record["annotations"]:
        raise LeftOut(reasons.UNRATED)
    for annotation in record["annotations"]:
        if annotation.get("was_cancelled"):
            yield LeftOut("skipped by the annotator")
            continue
        if not annotation["result"]:
            yield LeftOut(reasons.UNRATED)
        for result in annotation["result"]:
            try:
                yield from _result(record, annotation, result, options)
            except LeftOut as left_out:
                yield left_out


def _result(record: Record, annotation: Record, result: Record, options: Options) -> Iterator[Rating | LeftOut]:
    kind, value = result["type"], result["value"]
    prompt = _prompt(record["data"], options)
    who = annotation.get("completed_by")
    base = Rating(
        prompt, assistant(""), None, id=str(annotation.get("id", record.get("id"))),
        conversation=text_of(record.get("id")),
        user=text_of(who.get("id") if isinstance(who, Mapping) else who), kind="label",
        time=annotation.get("updated_at") or annotation.get("created_at"),
        subject=f"{record.get('id')} {who} {result.get('from_name')} {result.get('to_name')}", is_scale=True,
    )  # fmt: skip
    if kind == "pairwise":
        chosen = value["selected"]
        if chosen not in ("left", "right"):
            raise LeftOut("draw")
        for side in ("left", "right"):
            answer = assistant(_cell(record["data"], side, options))
            yield base._replace(answer=answer, value=side == chosen, kind="pair", subject=f"{base.subject} {side}")
        return
    answer = assistant(_cell(record["data"], "completion", options))
    if kind in ("choices", "rating"):
        given = value[kind][0] if kind == "choices" and len(value[kind]) == 1 else value[kind]
        if isinstance(given, list):
            raise LeftOut("several choices at once")
        kind_name = "star" if kind == "rating" else "label"
        yield base._replace(answer=answer, value=given, kind=kind_name, name=result["from_name"])
    elif kind == "textarea" and options.columns.get("correction") == result["from_name"]:
        if len(value["text"]) != 1:
            raise RowProblem("a correction of several texts")
        yield from corrected(base._replace(answer=answer), assistant(value["text"][0]))
    else:
        yield LeftOut(f"a result of type {kind!r}")


def _prompt(data: Record, options: Options) -> list[Message]:
    value = _cell(data, "prompt", options, default="prompt")
    return user(value) if isinstance(value, str) else messages(value, "prompt")


def _cell(data: Record, what: str, options: Options, default: str | None = None) -> Any:
    name = options.columns.get(what, default)
    if name is None:
        raise RowProblem(
            f"which column of the task is {what!r}? there are {', '.join(map(repr, sorted(data)))}",
            f"which column of the task is {what!r}?",
            todo=f"name it: --column {what}=COLUMN",
        )
    name = name.removeprefix("data.")
    if name not in data:
        raise RowProblem(f"no column {name!r}; there are {', '.join(map(repr, sorted(data)))}", f"no column {name!r}")
    return data[name]


LABEL_STUDIO = Source(
    "label-studio",
    "Label Studio",
    lambda r: "annotations" in r and isinstance(r.get("data"), Mapping),
    _read,
    refusal=_refusal,
)
