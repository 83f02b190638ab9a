"""The published model's results as the Hub reads them: `model-index` of the card, and the newer `.eval_results/`.

Only what can be relied on goes there, because a number is shown there without the words around it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from kto_release.records import RATES, EvalRecord, Interval
from kto_release.release import markdown
from kto_release.release.card_tables import reference
from kto_release.release.facts import CardFacts

EVAL_RESULTS = ".eval_results/alpaca_eval.yaml"
ALPACA_EVAL = "tatsu-lab/alpaca_eval"
METRIC_TYPES = {"preference accuracy": "accuracy", "AUC": "roc_auc"}
"""The Hub's name of a measure on held-out feedback."""


class Rate(NamedTuple):
    """One rate of the published model."""

    record: EvalRecord
    key: str
    """As AlpacaEval calls it."""
    value: float
    """Percent."""
    told: str
    """What it was won over, who judged, n and interval."""


def _rates(facts: CardFacts) -> Iterator[Rate]:
    """Every rate of the published model that is complete, reliable, not gamed, and has an interval."""
    for record in facts.evaluation_of(facts.last.model.name):
        if not record.reliable or record.partial or record.gamed:
            continue
        for rate in record.rates():
            if rate.interval is not None:
                over, judge = markdown.plain(reference(facts, record)), markdown.plain(record.judge.name)
                told = f"over {over}, judged by {judge} ({_sure(rate.interval, 1)})"
                yield Rate(record, rate.key, round(rate.value, 2), told)


def _sure(interval: Interval, scale: float) -> str:
    return f"n = {interval.n}, {interval.level:.0%} interval {interval.shown(scale)}"


def model_index(facts: CardFacts) -> list[Any]:
    """huggingface_hub's `EvalResult`s for the card's metadata."""
    from huggingface_hub import EvalResult

    found = []
    measured = facts.last.probe.held_out
    if measured is not None and measured.interval.reliable:
        found.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=facts.datasets[0] if facts.datasets else "held-out-feedback",
                dataset_name="held-out feedback",
                metric_type=METRIC_TYPES[measured.name],
                metric_name=f"{measured.name} ({_sure(measured.interval, 100)})",
                metric_value=round(100 * measured.interval.value, 2),
            )
        )
    for rate in _rates(facts):
        own = markdown.plain(rate.record.instructions)
        found.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=ALPACA_EVAL if rate.record.is_alpaca_eval else own,
                dataset_name="AlpacaEval 2.0" if rate.record.is_alpaca_eval else own,
                dataset_revision=rate.record.instructions_revision,
                metric_type=rate.key,
                metric_name=f"{RATES[rate.key]} {rate.told}",
                metric_value=rate.value,
            )
        )
    return found


def eval_results(facts: CardFacts) -> str | None:
    """The content of `.eval_results/alpaca_eval.yaml`; None where there is no result on AlpacaEval to be relied on.

    The Hub shows such a file where the data set is one of its registered benchmarks, with task ids of its own.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(
            dataset_id=ALPACA_EVAL,
            task_id=rate.key,
            value=rate.value,
            dataset_revision=rate.record.instructions_revision,
            date=rate.record.finished,
            notes=f"{RATES[rate.key]} {rate.told}",
        )
        for rate in _rates(facts)
        if rate.record.is_alpaca_eval
    ]
    if not entries:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=10_000)
