"""The summary on the console: a score with its full name, its n, its judge and its interval."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from kto_release import console
from kto_release.evaluate.scoring.leaderboard import show_neighbours
from kto_release.evaluate.scoring.screening import KINDS, Screening
from kto_release.records import OWN_LENGTH, OWN_LENGTH_NAME, RATES, EvalRecord, Interval


def show(record: EvalRecord) -> None:
    """The summary of one evaluation on the console, the verdict first."""
    if record.verdict is not None:
        console.say(f"{record.who} against {record.reference}: {record.verdict.in_words(reasons=False)}", style="bold")
    rows: list[Sequence[object]] = [
        [rate.name, f"{rate.value:.2f}", f"{rate.interval.shown(digits=2)}{_mark(rate.interval)}", rate.interval.n]
        for rate in record.rates()
        if rate.interval is not None
    ]
    if record.length_controlled_winrate is None:
        rows.append([RATES["length_controlled_winrate"], "none", record.no_length_control or "not measured", "–"])
    discrete = record.intervals.get("discrete_win_rate")
    bounds = f"{discrete.shown(digits=2)}{_mark(discrete)}" if discrete else "–"
    rows.append(["discrete win rate", _percent(record.discrete_win_rate), bounds, record.n_total])
    own = record.intervals.get(OWN_LENGTH)
    if own is not None:
        rows.append([OWN_LENGTH_NAME, f"{own.value:.2f}", f"{own.shown(digits=2)}{_mark(own)}", own.n])
    console.table(
        f"{record.who} against {record.reference}: {record.score}",
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
    for sentence in _of_the_judge(record):
        console.say(sentence)
    for reason in record.gamed:
        console.say(f"GAMED: {reason}", style="bold red")
    for reason in record.unreliable_because:
        console.say(f"unreliable: {reason}", style="yellow")


def _of_the_judge(record: EvalRecord) -> Iterator[str]:
    """What is known of it beside its judgements."""
    if record.judging is None:
        return
    if record.judging.trial:
        yield f"the judge: {record.judging.trial}"
    named = Counter[str]()
    for served in record.judging.served:
        if served.model:
            named[served.model] += served.judgements
    if named and named.keys() != {record.judge.model}:
        yield f"the judge answered as {', '.join(f'{name} ({count})' for name, count in named.items())}"
    if record.judging.unreadable:
        yield f"answers of the judge without a verdict: {record.judging.unreadable:.1%}"


def show_screening(screening: Screening) -> None:
    """What stands out in the answers, before their judgements are paid for."""
    for reason in screening.gamed:
        console.warn(f"a score of these answers will be called gamed: {reason}")
    found = [f"{count} x {KINDS[kind]}" for kind, count in screening.counts.items() if count]
    if found:
        console.say(f"screening: {'; '.join(found)}")


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
