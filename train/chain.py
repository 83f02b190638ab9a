"""The chain: each iteration from its parent's weights to its record, which the next one starts from."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from kto_release import console
from kto_release.digests import weights_digest
from kto_release.errors import RunError
from kto_release.files import read_record, write_record
from kto_release.kept import ROWS
from kto_release.lineage import LINEAGE, continued, inherited, this_round
from kto_release.models import LocalModel
from kto_release.models import facts as model_facts
from kto_release.recipe import StopRule
from kto_release.records import Interval, IterationRecord, ModelFacts, Probe
from kto_release.train.device import process_state, resolve_precision
from kto_release.train.fit import fit
from kto_release.train.inputs import Inputs
from kto_release.train.iteration import Iteration, make_iteration
from kto_release.train.plan import PLAN, Plan
from kto_release.train.probe import Prober, check_rows
from kto_release.train.same_function import FP32_ANSWER, FP32_NAT
from kto_release.train.tokens import Tokens
from kto_release.train.waiting import together


def run_iteration(inputs: Inputs, number: int) -> IterationRecord:
    """Iteration `number`, from 1: from its parent's weights to its record. A finished one is returned as it is."""
    run, state = inputs.run, process_state()
    done = run.iteration_record(number)
    if done is not None:
        console.say(f"Iteration {number} is finished: skipped.")
        return done
    parent = inputs.initial if number == 1 else _previous(inputs, number - 1)
    iteration = make_iteration(inputs, number, parent, resolve_precision(run.recipe.train))
    prober = Prober(inputs, iteration.precision)
    with together(state):
        if state.is_main_process:
            begin(iteration)
            _check_parent(iteration, prober)
    _announce(iteration)
    fit(iteration)
    with together(state):
        if state.is_main_process or prober.shares_work:
            _finish(iteration, prober)
    record = run.iteration_record(number)
    if record is None:
        raise RunError(f"iteration {number} left no record", todo="run the same command again")
    return record


def begin(iteration: Iteration) -> None:
    """Write the plan. Raises `RunError` where the iteration began before with other inputs."""
    path, plan = iteration.folder / PLAN, iteration.plan()
    begun = read_record(path, Plan)
    if begun is None:
        write_record(path, plan)
    elif begun != plan:
        old, new = begun.model_dump(), plan.model_dump()
        changed = "\n".join(f"  - {key}: {old[key]!r} then, {new[key]!r} now" for key in new if old[key] != new[key])
        raise RunError(
            f"iteration {iteration.number} began with other inputs:\n{changed}",
            todo=f"restore them, or remove {str(iteration.folder)!r} to start the iteration again",
        )


def _previous(inputs: Inputs, number: int) -> ModelFacts:
    record = inputs.run.iteration_record(number)
    if record is None:
        raise RunError(f"iteration {number} is not finished", todo="run `kto-release train` again")
    return record.model


def _check_parent(iteration: Iteration, prober: Prober) -> None:
    """The model that this iteration starts from gives the log-probabilities that were recorded for it."""
    run, number = iteration.inputs.run, iteration.number - 1
    record = run.iteration_record(number) if number else None
    if record is None or record.model.path is None or (iteration.folder / "model").exists():
        return
    path = run.path / record.model.path
    if weights_digest(path) != record.model.sha256:
        raise RunError(
            f"the weights of iteration {number} are not those of its record",
            todo=f"remove {str(run.iteration(number))!r} to train that iteration again",
        )
    found = prober.check_logps(path, _measured_on(iteration.inputs, number))
    for digest, value in found.items():
        expected = record.logprobs.get(digest, float("nan"))
        if not abs(value - expected) <= FP32_ANSWER + FP32_NAT * abs(expected):
            raise RunError(
                f"the model of iteration {number} gives log-probability {value} for row {digest}",
                expected=f"{expected}, as recorded when it was saved",
                todo="check this machine's libraries; the recorded versions are in record.json",
            )


def _measured_on(inputs: Inputs, number: int) -> Tokens:
    """The feedback that a model's log-probabilities are recorded of: held out, else the iteration's own."""
    return inputs.held_out or inputs.tokens[number - 1]


def _announce(iteration: Iteration) -> None:
    train, loss = iteration.train, iteration.loss
    console.heading(f"Iteration {iteration.number} of {iteration.inputs.run.recipe.data.iterations}")
    how = "Eq. 8" if train.desirable_weight == "auto" else "from the recipe"
    console.say(
        f"{len(iteration.batches)} steps of at most {train.batch_size} feedback; desirable weight "
        f"{loss.desirable:.4g} ({how}), undesirable weight {loss.undesirable:.4g}"
    )


def _finish(iteration: Iteration, prober: Prober) -> None:
    """Probe the model; the main process writes the record, and removes what only a resume needed."""
    inputs, number, folder = iteration.inputs, iteration.number, iteration.folder
    name = f"iteration-{number}"
    model = model_facts(LocalModel(folder / "model", name, None, None), name, f"{name}/model")
    rows = _measured_on(inputs, number)
    console.say("Probing the model on held-out feedback …")
    probed = prober.probe(model, iteration.parent, rows)
    if not prober.main:
        return
    record = iteration.record(model, probed)
    write_record(folder / ROWS, check_rows(rows))
    write_lineage(inputs, [*inputs.run.iteration_records()[: number - 1], record], folder / "model")
    write_record(folder / "record.json", record)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def write_lineage(inputs: Inputs, records: Sequence[IterationRecord], folder: Path) -> None:
    """Where the model comes from, beside its weights: whoever goes on from it, from wherever, finds it there."""
    before = inherited(inputs.base, inputs.initial)
    asked = [tokens.questions for tokens in inputs.tokens[: len(records)]]
    this = this_round(inputs.run.recipe.name, inputs.base, before, records, asked)
    write_record(folder / LINEAGE, continued(before, this))


def stopped_by(rules: Sequence[StopRule], probe: Probe) -> str | None:
    """The rule that says to stop after this probe, in words, or None. What was not measured stops nothing."""
    for rule in rules:
        found = getattr(probe, rule.metric)
        value = found.value if isinstance(found, Interval) else found
        if value is None:
            console.warn(f"train.stop_if: the probe did not measure {rule.metric}")
        elif rule.above is not None and value > rule.above:
            return f"{rule.metric} is {value:.4g}, above {rule.above:.4g}"
        elif rule.below is not None and value < rule.below:
            return f"{rule.metric} is {value:.4g}, below {rule.below:.4g}"
    return None
