"""The chain: partition i, reference i, optimization, hand-over, probe, record."""

import shutil

from kto_release import console
from kto_release.digests import sha256_of, weights_digest
from kto_release.errors import RunError
from kto_release.feedback.partitions import input_digests
from kto_release.files import read_jsonl, read_record, write_record
from kto_release.models import stored_weights
from kto_release.provenance import environment, now
from kto_release.recipe import StopRule
from kto_release.records import Interval, IterationRecord, ModelFacts, Probe, TrainingFacts
from kto_release.train.arithmetic import hardware, process_state, resolve_precision
from kto_release.train.fit import Job, fit
from kto_release.train.inputs import Chain
from kto_release.train.plain import TREES
from kto_release.train.plan import Plan, Work, read_plan, work_of, write_plan
from kto_release.train.probe import Prober, Scored
from kto_release.train.proof import Road
from kto_release.train.same_function import FP32_ANSWER, FP32_NAT
from kto_release.train.tokens import Tokens


def run_iteration(chain: Chain, number: int) -> IterationRecord:
    """Iteration `number`, from 1: from its parent's weights to its record. A finished one is returned as it is."""
    run, state = chain.run, process_state()
    done = run.iteration_record(number)
    if done is not None:
        console.say(f"Iteration {number} is finished: skipped.")
        return done
    parent = chain.initial if number == 1 else _previous(chain, number - 1)
    reference = parent if run.recipe.train.reference == "previous" else chain.initial
    precision = resolve_precision(run.recipe.train)
    work = work_of(chain.tokens[number - 1], run.recipe.train, number)
    prober = _prober(chain, precision, chain.tokens[number - 1])
    if state.is_main_process:
        _check_plan(chain, number, parent, reference, work, precision)
        _check_parent(chain, number, prober)
    state.wait_for_everyone()
    job = Job(
        number=number,
        folder=run.iteration(number),
        parent=_path(chain, parent),
        parent_sha256=parent.sha256,
        reference=_path(chain, reference),
        reference_sha256=reference.sha256,
        tokens=chain.tokens[number - 1],
        batches=work.batches,
        weights=work.weights,
        precision=precision,
        title=f"iteration {number}/{run.recipe.data.iterations}",
    )
    _announce(chain, number, work)
    fit(job, run.recipe.model, run.recipe.train, chain.tokenizer)
    if state.is_main_process:
        _finish(chain, number, parent, reference, work, precision, prober)
    state.wait_for_everyone()
    record = run.iteration_record(number)
    if record is None:
        raise RunError(f"iteration {number} left no record", todo="run the same command again")
    return record


def _previous(chain: Chain, number: int) -> ModelFacts:
    record = chain.run.iteration_record(number)
    if record is None:
        raise RunError(f"iteration {number} is not finished", todo="run `kto-release train` again")
    return record.model


def _path(chain: Chain, model: ModelFacts):  # type: ignore[no-untyped-def]
    return chain.base.path if model.path is None else chain.run.path / model.path


def _prober(chain: Chain, precision: str, tokens: Tokens) -> Prober:
    recipe = chain.run.recipe
    cache = chain.run.path / "held-out" / "logps"
    rows = chain.held_out or tokens
    return Prober(chain.held_out, cache, recipe.model, recipe.train, chain.tokenizer, precision, rows)


def _check_plan(
    chain: Chain, number: int, parent: ModelFacts, reference: ModelFacts, work: Work, precision: str
) -> None:
    """Write the plan, or refuse where an iteration that began has other inputs now."""
    folder = chain.run.iteration(number)
    plan = Plan(
        iteration=number,
        inputs=input_digests(chain.partitions[number - 1]),
        tokens_sha256=chain.tokens[number - 1].facts.sha256,
        parent_sha256=parent.sha256,
        reference_sha256=reference.sha256,
        steps=len(work.batches),
        desirable_weight=work.weights.desirable,
        undesirable_weight=work.weights.undesirable,
        precision=precision,
    )
    begun = read_plan(folder)
    if begun is None:
        write_plan(folder, plan)
    elif begun != plan:
        old, new = begun.model_dump(), plan.model_dump()
        changed = "\n".join(f"  - {key}: {old[key]!r} then, {new[key]!r} now" for key in new if old[key] != new[key])
        raise RunError(
            f"iteration {number} began with other inputs:\n{changed}",
            todo=f"restore them, or remove {str(folder)!r} to start the iteration again",
        )


def _check_parent(chain: Chain, number: int, prober: Prober) -> None:
    """The model that this iteration starts from gives the log-probabilities that were recorded for it."""
    if number == 1 or (chain.run.iteration(number) / "model").exists():
        return
    record = chain.run.iteration_record(number - 1)
    if record is None or record.model.path is None:
        return
    path = chain.run.path / record.model.path
    if weights_digest(path) != record.model.sha256:
        raise RunError(
            f"the weights of iteration {number - 1} are not those of its record",
            todo=f"remove {str(chain.run.iteration(number - 1))!r} to train that iteration again",
        )
    found = prober.check_logps(path, _check_tokens(chain, number - 1))
    for digest, expected in record.logprobs.items():
        # On one machine the difference is 0; other hardware adds in another order.
        allowed = FP32_ANSWER + FP32_NAT * abs(expected)
        if not abs(found.get(digest, float("nan")) - expected) <= allowed:
            raise RunError(
                f"the model of iteration {number - 1} gives log-probability {found.get(digest)} for row {digest}",
                expected=f"{expected}, as recorded when it was saved",
                todo="check this machine's libraries; the recorded versions are in record.json",
            )


def _check_tokens(chain: Chain, number: int):  # type: ignore[no-untyped-def]
    return chain.held_out or chain.tokens[number - 1]


def _announce(chain: Chain, number: int, work: Work) -> None:
    train = chain.run.recipe.train
    console.heading(f"Iteration {number} of {chain.run.recipe.data.iterations}")
    how = "Eq. 8" if train.desirable_weight == "auto" else "from the recipe"
    console.say(
        f"{len(work.batches)} steps of at most {train.batch_size} feedback; desirable weight "
        f"{work.weights.desirable:.4g} ({how}), undesirable weight {work.weights.undesirable:.4g}"
    )


def _finish(
    chain: Chain,
    number: int,
    parent: ModelFacts,
    reference: ModelFacts,
    work: Work,
    precision: str,
    prober: Prober,
) -> None:
    """Probe the model, write the record, and remove what only a resume needed."""
    run = chain.run
    folder = run.iteration(number)
    model_path = folder / "model"
    stored = stored_weights(model_path)
    model = ModelFacts(
        name=f"iteration-{number}",
        hub_id=None,
        revision=None,
        path=f"iteration-{number}/model",
        sha256=weights_digest(model_path),
        dtype=stored.dtype,
        parameters=stored.parameters,
    )
    console.say("Probing the model on held-out feedback …")
    probe, checks = prober.probe(
        Scored(model_path, model.sha256),
        Scored(_path(chain, parent), parent.sha256),
        Scored(chain.base.path, chain.initial.sha256),
        _check_tokens(chain, number),
    )
    record = IterationRecord(
        iteration=number,
        finished=now(),
        recipe_sha256=sha256_of(run.recipe.identity()),
        template=chain.template.name,
        template_sha256=chain.template.sha256,
        parent=parent,
        reference=reference,
        model=model,
        partition=chain.facts[number - 1],
        training=_training_facts(chain, number, work, precision),
        probe=probe,
        logprobs=checks,
        environment=environment(hardware(), process_state().num_processes),
    )
    write_record(folder / "record.json", record)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _training_facts(chain: Chain, number: int, work: Work, precision: str) -> TrainingFacts:
    train = chain.run.recipe.train
    rows = read_jsonl(chain.run.iteration(number) / "metrics.jsonl")
    road = read_record(chain.run.iteration(number) / "road.json", Road) or Road(name=TREES)
    tail = rows[-max(1, len(rows) // 10) :]
    shown = [name for name in rows[-1] if name not in ("step", "seconds", "tokens")]
    return TrainingFacts(
        steps=len(work.batches),
        epochs=train.epochs,
        batch_size=train.batch_size,
        beta=train.beta,
        learning_rate=train.learning_rate,
        desirable_weight=work.weights.desirable,
        undesirable_weight=work.weights.undesirable,
        lora=train.lora.model_dump() if train.lora else None,
        precision=precision,
        max_length=train.max_length,
        tokens_computed=int(rows[-1]["tokens"]),
        computed_by=road.name,
        computed_by_reason=road.reason,
        seconds=rows[-1]["seconds"],
        first={name: rows[0][name] for name in shown if name in rows[0]},
        last={name: sum(row[name] for row in tail if name in row) / len(tail) for name in shown},
    )


def stopped_by(rules: list[StopRule], probe: Probe) -> str | None:
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
