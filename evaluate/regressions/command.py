"""eval.regressions: the trained model and the initial one on the same benchmarks, written to regressions.json."""

from pathlib import Path

from kto_release import console
from kto_release.digests import sha256_of
from kto_release.errors import ScoreError
from kto_release.evaluate.candidates import Candidate, find_candidate
from kto_release.evaluate.regressions.harness import refuse_missing, run_harness
from kto_release.evaluate.regressions.logs import Scored, read_log
from kto_release.evaluate.regressions.outcome import regression
from kto_release.files import read_record, write_record
from kto_release.provenance import environment, now
from kto_release.recipe import EvalSection
from kto_release.records import RegressionsRecord
from kto_release.run import Run


def are_wanted(settings: EvalSection) -> bool:
    """Whether the recipe asks for regressions. Raises `EngineError` where what they need is not installed."""
    if settings.regressions and settings.regression_logs is None:
        refuse_missing()
    return bool(settings.regressions or settings.regression_logs)


def check_regressions(run: Run, candidate: Candidate) -> RegressionsRecord:
    """What became of the benchmarks that the recipe names; made once for the same models and settings.

    Raises `KtoReleaseError` where they can't be run or read, or the samples are not the same.
    """
    settings = run.recipe.eval
    initial = find_candidate(run, "initial")
    path = run.path / "eval" / candidate.name / "regressions.json"
    inputs = sha256_of(
        {
            "models": [initial.facts.sha256, candidate.facts.sha256],
            "dtypes": [initial.model.dtype, candidate.model.dtype],
            "template": candidate.template.sha256,
            "settings": [settings.regressions, settings.regression_margin, settings.regression_limit],
            "files": [settings.regression_tasks, settings.regression_logs],
        }
    )
    record = read_record(path, RegressionsRecord)
    if record is None or record.inputs_sha256 != inputs:
        source, before, after = _values(settings, initial, candidate)
        record = RegressionsRecord(
            finished=now(),
            model=candidate.facts,
            initial=initial.facts,
            template_sha256=candidate.template.sha256,
            source=source,
            tasks=[
                regression(name, one.metric, one.values, after[name].values, settings.regression_margin)
                for name, one in sorted(before.items())
            ],
            inputs_sha256=inputs,
            environment=environment(),
        )
        write_record(path, record)
    show(record)
    return record


def show(record: RegressionsRecord) -> None:
    """The benchmarks on the console, each with its outcome in words."""
    for one in record.tasks:
        console.say(one.in_words(), style={"held": "green", "worse": "bold red"}.get(one.outcome, "yellow"))


def _values(
    settings: EvalSection, initial: Candidate, candidate: Candidate
) -> tuple[str, dict[str, Scored], dict[str, Scored]]:
    """Where the values are from, and both models' by benchmark."""
    if settings.regression_logs is not None:
        source = "logs"
        before, after = (read_log(Path(log)) for log in settings.regression_logs)
    else:
        import lm_eval  # the extra

        source = f"lm-evaluation-harness {lm_eval.__version__}"
        include = Path(settings.regression_tasks) if settings.regression_tasks else None
        before, after = (
            run_harness(one, settings.regressions, limit=settings.regression_limit, include=include)
            for one in (initial, candidate)
        )
    apart = sorted(before.keys() ^ after.keys())
    differing = sorted(name for name in before.keys() & after.keys() if before[name].metric != after[name].metric)
    if apart or differing:
        raise ScoreError(
            f"the two models were not measured alike: {', '.join(apart + differing)}",
            expected="the same benchmarks by the same metrics",
        )
    return source, before, after
