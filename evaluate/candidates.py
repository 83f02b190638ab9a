"""Which model is evaluated: its files, its exact weights, the precision it would be published in, and its template."""

import re
from typing import Any, NamedTuple

from kto_release.digests import weights_digest
from kto_release.engines import Model
from kto_release.errors import ModelError, RunError
from kto_release.models import LocalModel, load_tokenizer, locate
from kto_release.models import facts as model_facts
from kto_release.published import facts_of, wanted_dtype
from kto_release.records import ModelFacts
from kto_release.run import Run
from kto_release.templates import Template, eos_ids, load_template, set_template, stop_ids
from kto_release.templates.contract import check_contract
from kto_release.templates.moment import reads_clock, set_moment

ITERATION = re.compile(r"iteration-([1-9]\d*)")


class Candidate(NamedTuple):
    """A model that can answer."""

    name: str
    """Its folder under eval/: initial, iteration-2, or a name made from a Hub id or a folder's."""
    generator: str
    """What its answers are signed with in alpaca_eval's files."""
    facts: ModelFacts
    model: Model
    """What an engine loads. Its dtype is the published one: the answers are those of the weights as published."""
    tokenizer: Any
    template: Template
    stop_ids: tuple[int, ...]


def find_candidate(run: Run, which: str | None) -> Candidate:
    """The model that `which` means: null is the last finished iteration; else initial, iteration-N, a folder, a Hub id.

    Raises `RunError` where the run does not hold it yet, `ModelError` where there is no such model.
    """
    if which is None:
        finished = run.iteration_records()
        if not finished:
            raise RunError(
                f"the run {run.recipe.name!r} has no finished iteration to evaluate",
                todo="kto-release train RECIPE first, or evaluate another model: --model initial, a folder, a Hub id",
            )
        return _iteration(run, len(finished))
    if which == "initial":
        return _initial(run)
    match = ITERATION.fullmatch(which)
    return _iteration(run, int(match[1])) if match else _foreign(run, which)


def check_weights(candidate: Candidate) -> None:
    """Raise `ModelError` where the weights are not those that the records speak of."""
    digest = weights_digest(candidate.model.folder)
    if digest != candidate.facts.sha256:
        raise ModelError(
            f"the weights of {candidate.name} are not those on record: digest {digest}",
            expected=candidate.facts.sha256,
            todo="restore the model's folder, or train that iteration again",
        )


def _initial(run: Run) -> Candidate:
    section = run.recipe.model
    base = locate(section.base, section.revision)
    facts = model_facts(base, "initial")
    first = run.iteration_record(1)
    if first is not None and first.parent.sha256 != facts.sha256:
        raise ModelError(
            f"{section.base!r} is no longer the model that the run began with: digest {facts.sha256}",
            expected=first.parent.sha256,
            todo="restore it, or name its commit in model.revision",
        )
    tokenizer = load_tokenizer(base, trust_remote_code=section.trust_remote_code)
    template = load_template(section.template, tokenizer)
    if reads_clock(template.source):
        set_moment(tokenizer, run.moment())
    model = Model(base.path, wanted_dtype(run, facts.dtype), section.trust_remote_code)
    return _candidate("initial", base.name, facts, model, tokenizer, template)


def _iteration(run: Run, number: int) -> Candidate:
    record = run.iteration_record(number)
    if record is None:
        raise RunError(
            f"iteration {number} of the run {run.recipe.name!r} is not finished",
            expected=f"one of the {len(run.iteration_records())} finished iterations, or initial",
            todo="kto-release train RECIPE",
        )
    folder = run.iteration(number) / "model"
    if not (folder / "config.json").is_file():
        raise RunError(f"iteration {number} has a record, and its model folder is gone", todo="restore the folder")
    section = run.recipe.model
    name = f"iteration-{number}"
    local = LocalModel(folder, name, None, None)
    tokenizer = load_tokenizer(local, trust_remote_code=section.trust_remote_code)
    where, facts = facts_of(run, record)  # what is published is evaluated, to the bit
    model = Model(where, facts.dtype, section.trust_remote_code)
    template = load_template("base", tokenizer)
    if reads_clock(template.source):
        set_moment(tokenizer, record.template_moment or run.moment())
    check_contract(tokenizer, template, eos_ids(folder))  # else other prompts would be answered than were trained on
    return _candidate(name, f"{run.recipe.name}-{name}", facts, model, tokenizer, template)


def _foreign(run: Run, which: str) -> Candidate:
    local = locate(which)
    facts = model_facts(local, local.name)
    tokenizer = load_tokenizer(local)
    template = load_template("base" if tokenizer.chat_template else run.recipe.model.template, tokenizer)
    if reads_clock(template.source):
        set_moment(tokenizer, run.moment())
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '--', local.name)}-{facts.sha256[:8]}"
    return _candidate(name, local.name, facts, Model(local.path, facts.dtype), tokenizer, template)


def _candidate(
    name: str, generator: str, facts: ModelFacts, model: Model, tokenizer: Any, template: Template
) -> Candidate:
    set_template(tokenizer, template)
    return Candidate(name, generator, facts, model, tokenizer, template, stop_ids(tokenizer, model.folder))
