"""What all iterations of a run share: the initial model, its tokenizer with the template, every partition's tokens."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kto_release import console
from kto_release.digests import file_sha256, sha256_of
from kto_release.errors import RecipeError, RunError
from kto_release.feedback.partitions import HELD_OUT, Partition, find_partitions, input_digests
from kto_release.feedback.report.described import describe
from kto_release.files import read_record
from kto_release.models import LocalModel, load_tokenizer, locate
from kto_release.models import facts as model_facts
from kto_release.recipe import Recipe
from kto_release.records import ModelFacts, PartitionFacts
from kto_release.run import Run
from kto_release.templates import Template, eos_ids, load_template, set_template
from kto_release.templates.contract import check_contract
from kto_release.templates.moment import in_words, moment_of, reads_clock, set_moment
from kto_release.train.batches import check_prompts
from kto_release.train.fits import check_base, check_generation, check_rows_fit, check_vocabulary
from kto_release.train.plan import PLAN, Plan
from kto_release.train.tokenizing import tokenize, tokenize_each
from kto_release.train.tokens import ALPACA_EVAL, Tokens, with_overlaps

LABELS = ("desirable", "undesirable")


class Inputs(NamedTuple):
    """Everything that exists before the first step."""

    run: Run
    base: LocalModel
    initial: ModelFacts
    tokenizer: Any
    template: Template
    partitions: list[Partition]
    tokens: list[Tokens]
    facts: list[PartitionFacts]
    held_out: Tokens | None


def check_recipe(recipe: Recipe) -> None:
    """What would only fail, or be ignored, after hours: trackers that are not there, rules on what is not measured.

    Raises `RecipeError`.
    """
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for tracker in recipe.train.report_to:
        if tracker not in INTEGRATION_TO_CALLBACK:
            raise RecipeError(
                f"train.report_to: {tracker!r} is no tracker that transformers knows",
                expected=f"some of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}",
            )
        if tracker not in get_available_reporting_integrations():
            raise RecipeError(f"train.report_to: {tracker!r} is not installed", todo=f"pip install {tracker}")
    for rule in recipe.train.stop_if:
        missing = "data.held_out" if recipe.data.held_out is None else None
        if rule.metric not in ("preference_accuracy", "auc") and not recipe.train.probe_prompts:
            missing = "train.probe_prompts above 0"
        if missing:
            raise RecipeError(f"train.stop_if: {rule.metric} needs {missing}", todo=f"set {missing}, or drop the rule")


def open_tokenizer(run: Run, base: LocalModel, *, keep: bool = True) -> tuple[Any, Template]:
    """The base model's tokenizer with the recipe's chat template in it; `check_contract` has yet to prove them.

    Where the template prints the date, it is rendered as of the run's moment, which is recorded unless `keep` is false.
    """
    tokenizer = load_tokenizer(base, trust_remote_code=run.recipe.model.trust_remote_code)
    template = load_template(run.recipe.model.template, tokenizer)
    set_template(tokenizer, template)
    if reads_clock(template.source):
        set_moment(tokenizer, run.moment(keep=keep))
    return tokenizer, template


def show_moment(tokenizer: Any) -> None:
    """That prompts hold a date, and which one."""
    moment = moment_of(tokenizer)
    if moment is not None:
        console.warn(
            f"the chat template prints the date: every prompt is rendered as of {in_words(moment)}, in training, "
            "evaluation, publishing and verify alike; whoever uses the model has their own day in it"
        )


def prepare(run: Run) -> Inputs:
    """Find the model and the feedback, tokenize all partitions, and check that nothing changed since the run began."""
    recipe = run.recipe
    base = locate(recipe.model.base, recipe.model.revision)
    check_base(base.path, recipe)
    check_generation(base.path)
    tokenizer, template = open_tokenizer(run, base)
    check_vocabulary(tokenizer, base.path, trust_remote_code=recipe.model.trust_remote_code)
    check_contract(tokenizer, template, eos_ids(base.path))  # after training it would be too late
    show_moment(tokenizer)
    found = find_partitions(recipe.data)
    every = found.named()
    _check_inputs(run, found.iterations)
    initial = model_facts(base, "initial")
    steps: dict[str, Callable[[], Tokens]] = {}
    for name, partition in every.items():
        folder = run.path / name.replace(" ", "-") / "tokens"
        key = sha256_of(
            {
                "inputs": input_digests(partition),
                "only": _digest_of(partition.only),
                "without": _digest_of(partition.without),
                "reading": recipe.data.model_dump(mode="json", exclude={"source", "partitions"}),
                "template": template.sha256,
                **({"moment": moment_of(tokenizer)} if moment_of(tokenizer) else {}),
                "tokenizer": _tokenizer_digest(base.path),
                "max_length": recipe.train.max_length,
                "truncate": recipe.train.truncate,
            }
        )
        steps[name] = partial(tokenize, folder, partition, recipe.data, recipe.train, tokenizer, key)
    tokens = tokenize_each(steps)
    for number in range(1, recipe.data.iterations + 1):
        own = tokens[f"iteration {number}"]
        check_prompts(own.prompt_F)  # here, and not after the iterations before it were trained
    check_rows_fit(base.path, tokens.values(), recipe.train.max_length, recipe.model.trust_remote_code)
    facts = with_overlaps(tokens)
    show_feedback(facts)
    describe(run.path, every, recipe.data)
    names = [name for name in every if name != HELD_OUT]
    return Inputs(
        run,
        base,
        initial,
        tokenizer,
        template,
        found.iterations,
        [tokens[name] for name in names],
        [facts[name] for name in names],
        tokens.get(HELD_OUT),
    )


def _digest_of(digests: frozenset[bytes] | None) -> str | None:
    return None if digests is None else sha256_of(sorted(digest.hex() for digest in digests))


def _tokenizer_digest(folder: Path) -> str:
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")
    return sha256_of({name: file_sha256(folder / name) for name in names if (folder / name).exists()})


def _check_inputs(run: Run, partitions: list[Partition]) -> None:
    """Refuse where the feedback of a finished iteration is no longer what it was trained on."""
    for number, partition in enumerate(partitions, 1):
        plan = read_record(run.iteration(number) / PLAN, Plan)
        inputs = input_digests(partition)
        if plan is None or plan.inputs == inputs:
            continue
        changed = sorted(
            name for name in plan.inputs.keys() | inputs.keys() if plan.inputs.get(name) != inputs.get(name)
        )
        raise RunError(
            f"the feedback of iteration {number} changed since it began: {', '.join(changed)}",
            todo="restore it, or give the recipe another name and start afresh",
        )


def show_feedback(facts: dict[str, PartitionFacts]) -> None:
    """What was read, per label, and what to know about it before the first step."""
    rows = []
    for name, partition in facts.items():
        dropped = [sum(getattr(c, label) for c in partition.dropped.values()) for label in LABELS]
        kept, cut = ([getattr(counts, label) for label in LABELS] for counts in (partition.kept, partition.truncated))
        per_label = [" / ".join(map(str, counts)) for counts in (kept, dropped, cut)]
        rows.append(
            [name, partition.name, partition.prompts, *per_label, partition.duplicates, f"{partition.tokens:,}"]
        )
    columns = ["", "partition", "prompts", "kept", "dropped", "cut", "twice", "tokens"]
    console.table("Feedback (desirable / undesirable)", columns, rows)
    shares = list(next(iter(facts.values())).lengths)
    console.table(
        "Tokens of a prompt with its answer, at percentiles",
        ["", *(f"{share}%" for share in shares), "longest"],
        [[name, *partition.lengths.values(), partition.longest] for name, partition in facts.items()],
    )
    for name, partition in facts.items():
        _warn(name, partition)


def _warn(name: str, partition: PartitionFacts) -> None:
    for reason, counts in partition.dropped.items():
        each = " and ".join(f"{getattr(counts, label)} {label}" for label in LABELS)
        console.warn(f"{name}: {each} answers dropped: {reason}")
    for reason, count in partition.skipped.items():
        console.warn(f"{name}: {count} rows left out: {reason}")
    for note, count in partition.notes.items():
        console.warn(f"{name}: {count} x {note}")
    if partition.unused:
        columns = ", ".join(f"{column} ({count})" for column, count in partition.unused.items())
        console.say(f"{name}: not trained on, in so many rows: {columns}")
    if not partition.kept.desirable or not partition.kept.undesirable:
        missing = LABELS[bool(partition.kept.desirable)]
        console.warn(f"{name}: there is no {missing} answer; KTO then has nothing to weigh the other kind against")
    for other, count in partition.overlaps.items():
        if count and other == ALPACA_EVAL:
            console.warn(
                f"{name}: {count} prompts are instructions of AlpacaEval; its score would not be one of unseen"
            )
        elif count and (other == HELD_OUT or name < other):
            console.warn(f"{name} shares {count} prompts with {other}")
