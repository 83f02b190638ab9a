"""The tables of the model card: every cell is a value of a record, with its interval where it has one."""

from collections.abc import Sequence

from kto_release.lineage import HUB_ID
from kto_release.records import EvalRecord, Interval, IterationRecord, LabelCounts, Scale
from kto_release.release.facts import CardFacts
from kto_release.release.markdown import Raw, escape, link, table

NOT_MEASURED = "not measured"
DOUBTFUL = "†"
"""Behind an interval that is known not to hold its level."""


def shown(value: float | None, digits: int = 2) -> str:
    """A number as a person reads it; None is "not measured"."""
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}"


def sure(interval: Interval | None, scale: float = 1.0) -> str:
    """A value with its interval: 52.5 (45.1 to 59.9); a dagger where the interval is not to be relied on."""
    if interval is None:
        return NOT_MEASURED
    return f"{scale * interval.value:.1f} ({interval.shown(scale)})" + ("" if interval.reliable else f" {DOUBTFUL}")


def counts(labels: LabelCounts) -> str:
    """Rows by label."""
    return f"{labels.desirable:,} + {labels.undesirable:,}"


def hub_link(endpoint: str, hub_id: str, kind: str = "") -> Raw:
    """A repository by its Hub id, on the Hub that the release goes to: elsewhere the name may be anybody's."""
    return link(hub_id, f"{endpoint}/{kind}{hub_id}")


def source_link(endpoint: str, name: str) -> Raw:
    """A data set by its Hub id, or a file by its name."""
    return hub_link(endpoint, name, "datasets/") if HUB_ID.fullmatch(name) else Raw(escape(name))


def reference(facts: CardFacts, record: EvalRecord) -> str:
    """What answers were compared with."""
    return "the initial model" if record.reference in facts.initial_names else record.reference


def rate(record: EvalRecord, key: str) -> str:
    """A rate in percent with its interval; a rate without an interval is not shown as one."""
    value, interval = getattr(record, key), record.intervals.get(key)
    if value is None:
        return NOT_MEASURED
    marks = "" if record.reliable else " ‡"
    return f"{sure(interval)}{marks}" if interval is not None else f"{value:.1f} (no interval){marks}"


def scales(records: Sequence[EvalRecord]) -> list[list[EvalRecord]]:
    """Evaluations that may stand side by side, the earliest model first."""
    found: dict[Scale, list[EvalRecord]] = {}
    for record in records:
        found.setdefault(record.scale, []).append(record)
    return [sorted(same, key=lambda record: record.age) for same in found.values()]


def iteration_table(facts: CardFacts) -> Raw:
    """What each iteration was trained on, and what became of it."""
    scored = scales(facts.evaluations)
    columns = [
        "iteration",
        "partition",
        "rows (desirable + undesirable)",
        "steps",
        "KL from initial (nats)",
        "answer length (tokens)",
        f"held-out {held_out_name(facts)} (%)",
        *(f"win rate over {reference(facts, same[0])} (%), judged by {same[0].judge.name}" for same in scored),
    ]
    rows = []
    for record in facts.iterations:
        probe = record.probe
        rows.append(
            [
                record.iteration,
                record.partition.name,
                counts(record.partition.kept),
                f"{record.training.steps:,}",
                shown(probe.kl_initial),
                shown(probe.mean_length, 1),
                sure(probe.held_out.interval if probe.held_out else None, 100),
                *(_win_rate(record, same) for same in scored),
            ]
        )
    return table(columns, rows)


def held_out_name(facts: CardFacts) -> str:
    """What the held-out column of the iterations' table measures."""
    return next((record.probe.held_out.name for record in facts.iterations if record.probe.held_out), "accuracy")


def _win_rate(record: IterationRecord, same: Sequence[EvalRecord]) -> str:
    of_model = [one for one in same if one.model is not None and one.model.name == record.model.name]
    return rate(of_model[-1], "win_rate") if of_model else NOT_MEASURED


def training_table(facts: CardFacts) -> Raw:
    """The settings of the training; where iterations differ, each one's value."""
    records = facts.iterations
    fields: dict[str, list[str]] = {
        "epochs over each partition": [str(record.training.epochs) for record in records],
        "feedback per optimizer step": [f"{record.training.batch_size:,}" for record in records],
        "β": [f"{record.training.beta:g}" for record in records],
        "peak learning rate": [f"{record.training.learning_rate:g}" for record in records],
        "weight of desirable feedback": [f"{record.training.desirable_weight:.4g}" for record in records],
        "weight of undesirable feedback": [f"{record.training.undesirable_weight:.4g}" for record in records],
        "most tokens of prompt and completion": [f"{record.training.max_length:,}" for record in records],
        "trained": [_trained(record) for record in records],
        "arithmetic": [record.training.precision for record in records],
    }
    return table(["setting", "value"], [[name, ", ".join(dict.fromkeys(values))] for name, values in fields.items()])


def _trained(record: IterationRecord) -> str:
    lora = record.training.lora
    if not lora:
        return "all weights, kept in fp32"
    return f"LoRA adapters of rank {lora.get('rank')}, merged"


def evaluation_tables(facts: CardFacts) -> list[dict[str, object]]:
    """One table for each scale: scores under different judges, instructions or references never share one."""
    found: list[dict[str, object]] = []
    for same in scales(facts.evaluations):
        rows = [
            [
                _who(record, facts),
                rate(record, "win_rate"),
                rate(record, "length_controlled_winrate"),
                f"{record.n_total:,}",
                f"{record.n_missing + record.n_failed:,}",
                shown(record.avg_length, 0),
            ]
            for record in same
        ]
        columns = [
            "model",
            "win rate (%)",
            "length-controlled win rate (%)",
            "n",
            "missing or failed",
            "mean length (characters)",
        ]
        found.append(
            {
                "record": same[-1],
                "table": table(columns, rows),
                "reasons": _reasons(same),
                "reference": reference(facts, same[-1]),
                "flagged": [f"{n} {kind.replace('_', ' ')}" for kind, n in same[-1].screening.items() if n],
                "estimated": _estimated(same[-1]),
                "verdict": same[-1].verdict.in_words(reasons=False) if same[-1].verdict else None,
            }
        )
    return found


def _who(record: EvalRecord, facts: CardFacts) -> str | Raw:
    published = record.model is not None and record.who == facts.last.model.name
    return Raw(f"**{escape(record.who)}** (this model)") if published else record.who


def _estimated(record: EvalRecord) -> str | None:
    """A calibration's estimate in its own words, or each of its numbers under its name."""
    if record.estimated is None:
        return None
    if isinstance(record.estimated.get("text"), str):
        return str(record.estimated["text"])
    numbers = [(name, value) for name, value in record.estimated.items() if isinstance(value, int | float)]
    return "; ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in numbers)


def _reasons(same: Sequence[EvalRecord]) -> list[str]:
    """Why scores of one scale are not to be relied on, each once; that one is gamed is said at the card's head."""
    return list(dict.fromkeys(reason for record in same for reason in record.unreliable_because))
