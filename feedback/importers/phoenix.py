"""Phoenix: a data set's JSON lines with annotations, or annotations joined with spans by their id."""

from collections.abc import Iterator, Mapping

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.deciding import RULE
from kto_release.feedback.importers.logged import logged
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import text_of
from kto_release.feedback.rows import RowProblem


def _phoenix_note(record: Record) -> bool:
    return {"annotator_kind", "name"} <= record.keys() and ("span_id" in record or "trace_id" in record)


def _phoenix_row(record: Record) -> bool:
    noted = record.get("metadata")
    return {"input", "output"} <= record.keys() and isinstance(noted, Mapping) and "annotations" in noted


def _phoenix_table(record: Record, _options: Options) -> tuple[str, object] | None:
    if _phoenix_note(record) or _phoenix_row(record) or not {"input", "output"} <= record.keys():
        return None
    name = record.get("span_id")
    return ("span", name) if name is not None else None


def _phoenix_refusal(record: Record) -> str | None:
    if set(record) == {"messages"}:
        return "the openai_ft export has lost the annotations: export the data set as JSONL"
    return None


def _phoenix(record: Record, tables: Tables, options: Options) -> Iterator[Rating | LeftOut]:
    if _phoenix_row(record):
        noted = [
            {**note, "name": name} for name, notes in record["metadata"]["annotations"].items() for note in notes or []
        ]
        talk = record
    else:
        noted = [{**record, **(record.get("result") or {})}]
        found = tables.get("span", record.get("span_id")) if record.get("span_id") else None
        if found is None:
            raise LeftOut("rating of a whole trace, not of an answer" if not record.get("span_id") else reasons.LOST)
        talk = found
    base = logged(talk["input"], talk["output"])
    wants_number = options.desirable is not None and RULE.fullmatch(options.desirable) is not None
    for note in noted:
        kind = note["annotator_kind"]
        if kind not in ("HUMAN", "LLM", "CODE"):
            raise RowProblem(f"annotator_kind is {kind!r}, not HUMAN, LLM or CODE")
        label, score = note.get("label"), note.get("score")
        who = text_of(note.get("user_id"))
        yield base._replace(
            value=score if wants_number or label in (None, "") else label,
            id=str(note.get("id") or record["id"]), user=who, time=note.get("updated_at") or note.get("created_at"),
            kind="score", by="human" if kind == "HUMAN" else "judge", name=str(note["name"]),
            subject=f"{note.get('span_id') or record['id']} {note['name']} {kind} {who}", is_scale=True,
            comment=note.get("explanation"),
        )  # fmt: skip


PHOENIX = Source(
    "phoenix",
    "Arize Phoenix",
    lambda r: _phoenix_note(r) or _phoenix_row(r),
    _phoenix,
    table=_phoenix_table,
    refusal=_phoenix_refusal,
)
