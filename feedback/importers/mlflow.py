"""MLflow: assessments, within their trace or joined with it by trace_id."""

from collections.abc import Iterator, Mapping

from kto_release.feedback.importers import reasons
from kto_release.feedback.importers.logged import logged
from kto_release.feedback.importers.rating import LeftOut, Options, Rating, Record, Source, Tables
from kto_release.feedback.importers.texts import text_of
from kto_release.feedback.rows import RowProblem


def _flow_record(record: Record) -> Record:
    """A trace as one level: its info, and the request and response of its data or of its root span."""
    info, data = record.get("info"), record.get("data")
    if not isinstance(info, Mapping) or not isinstance(data, Mapping):
        return record
    roots = [s for s in data.get("spans") or [] if not (s.get("parent_span_id") or s.get("parent_id"))]
    seen = roots[0].get("attributes", {}) if roots else {}
    sides = {
        "request": data.get("request") or seen.get("mlflow.spanInputs"),
        "response": data.get("response") or seen.get("mlflow.spanOutputs"),
    }
    return {**info, **sides}


def _flow_table(record: Record, _options: Options) -> tuple[str, object] | None:
    record = _flow_record(record)
    if record.get("assessments") or not {"request", "response"} <= record.keys():
        return None
    name = record.get("trace_id") or record.get("request_id")
    return ("trace", name) if name is not None else None


def _is_flow(record: Record) -> bool:
    alone = {"trace_id", "name", "source"} <= record.keys() and isinstance(record["source"], Mapping)
    return alone or isinstance(_flow_record(record).get("assessments"), list)


def _flow(record: Record, tables: Tables, _options: Options) -> Iterator[Rating | LeftOut]:
    record = _flow_record(record)
    inside = record.get("assessments")
    trace = record if inside is not None else tables.get("trace", record["trace_id"])
    if inside == []:
        raise LeftOut(reasons.UNRATED)
    if trace is None:
        raise LeftOut(reasons.LOST)
    trace = _flow_record(trace)
    base = logged(trace.get("request"), trace.get("response"))
    for said in inside if inside is not None else [record]:
        source = said["source"]
        kind = source.get("source_type")
        if kind not in {"HUMAN", "LLM_JUDGE", "AI_JUDGE", "CODE"}:
            raise RowProblem(f"source_type is {kind!r}, not HUMAN, LLM_JUDGE or CODE")
        value = said.get("value")
        if value is None and isinstance(said.get("feedback"), Mapping):
            value = said["feedback"].get("value")
        who, name = text_of(source.get("source_id")), str(said.get("name") or said.get("assessment_name"))
        of = text_of(said.get("trace_id") or record.get("trace_id"))
        if said.get("valid") is False:
            yield LeftOut("superseded by a later rating of the same answer")
            continue
        yield base._replace(
            value=value,
            id=str(said.get("assessment_id") or of),
            conversation=of,
            user=who,
            time=said.get("last_update_time") or said.get("create_time"),
            kind="score",
            by="human" if kind == "HUMAN" else "judge",
            name=name,
            subject=f"{of} {name} {kind} {who}",
            is_scale=True,
            comment=said.get("rationale"),
        )


MLFLOW = Source("mlflow", "MLflow", _is_flow, _flow, table=_flow_table)
