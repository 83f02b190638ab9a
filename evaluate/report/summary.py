"""results.json and the summary on the console: a score with its full name, its n, its judge and its interval."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kto_release import console
from kto_release.evaluate.scoring.leaderboard import show_neighbours
from kto_release.evaluate.scoring.length_data import LcData
from kto_release.evaluate.scoring.scores import Scores
from kto_release.provenance import environment, now
from kto_release.records import EvalRecord, GenerationFacts, Interval, JudgeFacts, ModelFacts

RATES = {"win_rate": "win rate", "length_controlled_winrate": "length-controlled win rate"}


class Compared(NamedTuple):
    """What was scored against what: the parts of a record that no judgement determines."""

    model: ModelFacts | None
    """Null where recorded annotations were scored."""
    answers_by: str | None
    """Generator of the answers."""
    instructions: str
    instructions_sha256: str
    instructions_revision: str | None
    reference: str
    reference_sha256: str
    generation: GenerationFacts | None


def full_name(judge: JudgeFacts, instructions: str, *, is_alpaca_eval: bool) -> str:
    """The score's name: what was measured, and by whom. The judge is a part of it, always."""
    benchmark = "AlpacaEval 2.0" if is_alpaca_eval else instructions
    orders = "both orders" if judge.swap else "one order"
    return f"{benchmark} [judge={judge.name}, prompt={judge.prompt} {judge.prompt_sha256[:8]}, {orders}]"


def to_record(
    scores: Scores,
    compared: Compared,
    judge: JudgeFacts,
    *,
    lc_data: LcData | None,
    screening: Mapping[str, int],
    gamed: Sequence[str],
    estimated: Mapping[str, Any] | None = None,
    unreliable_because: Sequence[str] = (),
) -> EvalRecord:
    """The record of an evaluation; `unreliable_because` adds reasons to those that the scores hold."""
    doubts = [*scores.unreliable_because, *unreliable_because, *(f"gamed: {reason}" for reason in gamed)]
    return EvalRecord(
        finished=now(),
        score=full_name(judge, compared.instructions, is_alpaca_eval=scores.is_alpaca_eval),
        win_rate=scores.win_rate,
        standard_error=scores.standard_error,
        discrete_win_rate=scores.discrete_win_rate,
        length_controlled_winrate=scores.length_controlled_winrate,
        n_total=scores.n_total,
        n_missing=scores.n_missing,
        n_failed=scores.n_failed,
        avg_length=scores.avg_length,
        partial=scores.partial,
        **compared._asdict(),
        is_alpaca_eval=scores.is_alpaca_eval,
        judge=judge,
        intervals=scores.intervals,
        variance=scores.variance,
        position_bias=scores.position_bias,
        self_consistency=scores.self_consistency,
        answer_mass=scores.answer_mass,
        reliable=not doubts,
        unreliable_because=doubts,
        screening=dict(screening),
        gamed=list(gamed),
        estimated=None if estimated is None else dict(estimated),
        environment=environment(),
        n_wins=scores.n_wins,
        n_wins_base=scores.n_wins_base,
        n_draws=scores.n_draws,
        no_length_control=scores.no_length_control,
        lc_data_sha256=lc_data.sha256 if lc_data and scores.length_controlled_winrate is not None else None,
        regularization=scores.regularization,
        by_dataset=scores.by_dataset,
    )


def show(record: EvalRecord) -> None:
    """The summary of one evaluation on the console."""
    who = record.answers_by or (record.model.name if record.model else "recorded answers")
    rows = [
        [RATES[key], f"{interval.value:.2f}", f"{interval.low:.2f} to {interval.high:.2f}{_mark(interval)}", interval.n]
        for key, interval in record.intervals.items()
    ]
    if record.length_controlled_winrate is None:
        rows.append([RATES["length_controlled_winrate"], "none", record.no_length_control or "not measured", "–"])
    rows.append(["discrete win rate", _percent(record.discrete_win_rate), "–", record.n_total])
    console.table(
        f"{who} against {record.reference}: {record.score}",
        ["score", "%", "95% interval", "instructions"],
        rows,
    )
    lost = (
        [f"{record.n_missing} missing", f"{record.n_failed} failed"] if record.partial else ["none missing or failed"]
    )
    console.say(f"{record.n_total} judgements scored, {', '.join(lost)}; {record.avg_length} characters on average")
    if record.variance.get("generation") is not None or record.variance.get("judge") is not None:
        console.say(f"variance of the win rate: {variance_in_words(record.variance)}")
    show_neighbours(record)
    if record.estimated is not None:
        console.say(f"on the official scale: {record.estimated.get('text', record.estimated)}")
    for reason in record.gamed:
        console.say(f"GAMED: {reason}", style="bold red")
    for reason in record.unreliable_because:
        if not reason.startswith("gamed: "):
            console.say(f"unreliable: {reason}", style="yellow")


def variance_in_words(variance: Mapping[str, float | None]) -> str:
    """What the win rate's variance comes from, in shares of it; the instructions' hold what was not measured."""
    parts = {name: variance.get(name) for name in ("instructions", "generation", "judge")}
    # Parts are estimates: with few samples they can add up to more than the whole.
    whole = max(variance.get("total") or 0.0, math.fsum(part for part in parts.values() if part is not None))
    if not variance.get("total"):
        return "not measured"
    shares = {name: "not measured" if part is None else f"{part / whole:.0%}" for name, part in parts.items()}
    return ", ".join(f"{name} {share}" for name, share in shares.items())


def _mark(interval: Interval) -> str:
    return "" if interval.reliable else f" (not to be relied on: {interval.note})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
