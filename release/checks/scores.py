"""Checks of the evaluation."""

from kto_release.feedback.partitions import HELD_OUT
from kto_release.records import EvalRecord, Interval, IterationRecord
from kto_release.release.card_tables import scales
from kto_release.release.checks.item import HF, OURS, USERS, Items, Outcome, Subject, failed, not_measured, passed

ITEMS = Items()


def _published(subject: Subject) -> list[EvalRecord]:
    return subject.facts.evaluation_of(subject.facts.last.model.name)


@ITEMS.item("evaluated", f"{HF} (performance metrics)")
def _evaluated(subject: Subject) -> Outcome:
    records = _published(subject)
    bare = [record.score for record in records if "win_rate" not in record.intervals]
    if bare:
        return failed(f"a score without an interval: {', '.join(bare)}")
    if not records:
        return not_measured("no answers of the published model were judged")
    return passed("; ".join(f"{record.score}: {_percent(record.intervals['win_rate'])}" for record in records))


def _percent(interval: Interval) -> str:
    return f"{interval.value:.1f} ({interval.shown()}, n = {interval.n})"


@ITEMS.item("evaluation-complete", f"{USERS}: scores of fewer instructions than they claim")
def _evaluation_complete(subject: Subject) -> Outcome:
    records = _published(subject)
    partial = [f"{one.n_missing} missing, {one.n_failed} failed" for one in records if one.partial or one.n_failed]
    if partial:
        return not_measured("; ".join(partial))
    if not records:
        return not_measured("no evaluation")
    return passed(f"{', '.join(str(record.n_total) for record in records)} judgements, none missing or failed")


@ITEMS.item("judge-reliable", f"{USERS}: plausible numbers by the wrong judge")
def _judge_reliable(subject: Subject) -> Outcome:
    records = _published(subject)
    reasons = dict.fromkeys(
        reason
        for record in records
        for reason in (*record.unreliable_because, *(f"gamed: {one}" for one in record.gamed))
    )
    if reasons:
        return not_measured("; ".join(reasons))
    return passed("nothing speaks against the judge") if records else not_measured("no evaluation")


@ITEMS.item("not-gamed", f"{USERS}: one constant answer that wins")
def _not_gamed(subject: Subject) -> Outcome:
    records = _published(subject)
    reasons = dict.fromkeys(reason for record in records for reason in record.gamed)
    if reasons:
        return not_measured(f"the score may be gamed, and the card says so: {'; '.join(reasons)}")
    return passed("no pattern that games a judge in the answers") if records else not_measured("no evaluation")


@ITEMS.item("better-than-initial", OURS)
def _better_than_initial(subject: Subject) -> Outcome:
    shown = [_against_initial(record, subject) for record in _published(subject)]
    for state in ("failed", "passed", "not measured"):
        for outcome in shown:
            if outcome.state == state:
                return outcome
    return not_measured("no evaluation against the initial model")


def _against_initial(record: EvalRecord, subject: Subject) -> Outcome:
    """Against the initial model's answers directly, or by intervals that do not touch."""
    interval = record.intervals.get("win_rate")
    if interval is None or not record.reliable or not interval.reliable:
        return not_measured("the score is not to be relied on")
    low, high = 50.0, 50.0
    names = subject.facts.initial_names
    if record.reference in names and record.verdict is not None:
        told = record.verdict.in_words()
        if record.verdict.said == "not distinguishable":
            return not_measured(told)
        return passed(told) if record.verdict.said == "better" else failed(told)
    if record.reference not in names:
        same = next((one for one in scales(subject.facts.evaluations) if record in one), [])
        initial = [one.intervals.get("win_rate") for one in same if one.model is not None and one.model.name in names]
        if not initial or initial[-1] is None:
            return not_measured("the initial model was not evaluated")
        low, high = initial[-1].low, initial[-1].high
    told = f"{_percent(interval)}, the initial model {low:.1f}" + (f" to {high:.1f}" if high > low else "")
    if interval.low > high:
        return passed(told)
    return failed(told) if interval.high < low else not_measured(f"not distinguishable: {told}")


@ITEMS.item("no-regressions", f"{USERS}: what training broke elsewhere")
def _no_regressions(subject: Subject) -> Outcome:
    found = {one.task: one for record in _published(subject) for one in record.regressions}.values()
    if not found:
        return not_measured("no benchmark of other abilities (eval.regressions)")
    told = "; ".join(one.in_words() for one in found)
    if any(one.outcome == "worse" for one in found):
        return failed(told)
    return passed(told) if all(one.outcome == "held" for one in found) else not_measured(told)


@ITEMS.item("held-out-accuracy", OURS)
def _held_out_accuracy(subject: Subject) -> Outcome:
    measured = subject.facts.last.probe.held_out
    if measured is None:
        return not_measured("no held-out pairs, and fewer than 30 held-out answers of either label")
    accuracy = measured.interval
    told = f"{measured.name} {accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%}, n = {accuracy.n})"
    if accuracy.low > 0.5:
        return passed(told)
    return failed(f"below one half: {told}") if accuracy.high < 0.5 else not_measured(f"not above one half: {told}")


@ITEMS.item("no-overlap", f"{USERS}: training on what is evaluated")
def _no_overlap(subject: Subject) -> Outcome:
    """Held-out prompts are compared by training, instructions by the screening of the evaluation."""
    records, shared, open_ = _published(subject), list[str](), list[str]()
    if subject.facts.last.probe.held_out is not None:
        found = [_held_out_overlap(record) for record in subject.facts.iterations]
        shared += [f"{count} held-out prompts" for count in [sum(count or 0 for count in found)] if count]
        open_ += ["held-out prompts"] if None in found else []
    if records:
        trained = [record.screening.get("trained_on") for record in records]
        if any(record.is_alpaca_eval for record in records):  # training itself looked for these instructions too
            known = [record.partition.overlaps.get("alpaca_eval") for record in subject.facts.iterations]
            trained += [sum(count or 0 for count in known)]
        shared += [f"{count} instructions of the evaluation" for count in [max(one or 0 for one in trained)] if count]
        open_ += ["the evaluation's instructions"] if None in trained else []
    if shared:
        return not_measured(f"how it does on unseen prompts: {' and '.join(shared)} are among the training prompts")
    if open_ or not (records or subject.facts.last.probe.held_out):
        return not_measured(f"training prompts were not compared with {' and '.join(open_) or 'anything'}")
    return passed("no held-out prompt and no instruction of the evaluation is among the training prompts")


def _held_out_overlap(record: IterationRecord) -> int | None:
    """Prompts of an iteration that are held out too; None where nobody looked."""
    return record.partition.overlaps.get(HELD_OUT)
