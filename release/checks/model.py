"""Checks of what was trained and is published: the chain of iterations, the weights, the files, the chat template."""

import itertools
from collections.abc import Iterator, Mapping

from kto_release.published import in_words
from kto_release.records import IterationRecord
from kto_release.release.allowed import SAFE_SUFFIXES, is_legal
from kto_release.release.checks.item import HF, OURS, USERS, Items, Outcome, Subject, failed, not_measured, passed
from kto_release.release.readers import read_object
from kto_release.weights import problems

ITEMS = Items()

MAX_FIRST_KL = 0.1
"""Nats. At the first step the policy is the reference, so z is 0 but for arithmetic: bf16 sums over a thousand tokens
differ by a few hundredths between two ways to batch them."""
MAX_FIRST_LOSS = 0.02
"""Relative: β times that noise, through a sigmoid of slope 1/4, stays below."""
RELOAD_ABSOLUTE, RELOAD_RELATIVE = 0.01, 0.005
"""Nats, and share of log π: twice what bf16 arithmetic differs by between a packed row and a single one."""


@ITEMS.item("iterations-finished", OURS)
def _iterations_finished(subject: Subject) -> Outcome:
    done, planned = len(subject.facts.iterations), subject.facts.planned
    if done < planned:
        return not_measured(f"{done} of {planned} iterations: the card calls it out")
    return passed(f"all {planned} iterations of the recipe")


@ITEMS.item("lineage-unbroken", f"{USERS}: chains that silently restarted")
def _lineage_unbroken(subject: Subject) -> Outcome:
    records = subject.facts.iterations
    for before, after in itertools.pairwise(records):
        if after.parent.sha256 != before.model.sha256:
            return failed(f"iteration {after.iteration} did not start from the model of iteration {before.iteration}")
    if subject.facts.weights is not None and subject.facts.weights.source_sha256 != records[-1].model.sha256:
        return failed("the published weights were not made from the last iteration's model")
    return passed(f"each of {len(records)} iterations starts from the weights that the one before it saved")


@ITEMS.item("reference-right", OURS)
def _reference_right(subject: Subject) -> Outcome:
    looked = [problem for record in subject.facts.iterations for problem in _first_step(record)]
    unknown = [
        record.iteration for record in subject.facts.iterations if not {"loss", "kl"} <= record.training.first.keys()
    ]
    if looked:
        return failed("; ".join(looked))
    if unknown:
        return not_measured(f"iteration {unknown[0]} recorded no loss and z of its first step")
    return passed("at the first step of every iteration z is 0 and the loss is half the mean weight")


def _first_step(record: IterationRecord) -> Iterator[str]:
    first, training = record.training.first, record.training
    if abs(first.get("kl", 0.0)) > MAX_FIRST_KL:
        yield f"iteration {record.iteration}: z is {first['kl']:.3g} at the first step, not 0"
    weights = sorted((training.desirable_weight, training.undesirable_weight))
    low, high = weights[0] / 2 * (1 - MAX_FIRST_LOSS), weights[1] / 2 * (1 + MAX_FIRST_LOSS)
    if "loss" in first and not low <= first["loss"] <= high:
        yield f"iteration {record.iteration}: the first loss is {first['loss']:.3g}, not half the mean weight"


def _weights(name: str, asked_by: str, keys: tuple[str, ...], good: str) -> None:
    """Enter a check that release/weights.py has made."""

    def look(subject: Subject) -> Outcome:
        weights = subject.facts.weights
        if weights is None:
            return not_measured("the weights were not looked at")
        wrong = problems(weights)
        found = [f"{key}: {wrong[key]}" for key in keys if key in wrong]
        if found:
            return failed("; ".join(found))
        return passed(good.format_map(weights.model_dump()))

    ITEMS.item(name, asked_by)(look)


_weights(
    "weights-complete",
    f"{USERS}: checkpoints with tensors missing",
    ("missing", "unexpected"),
    "{tensors} tensors, as in the initial model",
)
_weights("weights-shapes", OURS, ("shape",), "every tensor has the shape of the initial model's")
_weights("weights-finite", OURS, ("finite",), "{parameters:,} values, none of them NaN or infinite")
_weights("weights-filled", f"{USERS}: empty checkpoints", ("empty",), "no tensor is empty or all zeros")
_weights("weights-changed", OURS, ("changed",), "{changed_share:.1%} of the values differ from the initial model's")


@ITEMS.item("training-kept", OURS)
def _training_kept(subject: Subject) -> Outcome:
    weights, found = subject.facts.weights, subject.facts.kept
    if weights is not None and weights.rounding == "none":
        return passed(f"nothing is rounded: the published {weights.dtype} values are the trained ones")
    if found is None or found.kept is None:
        return not_measured("training recorded no rows that tell what rounding keeps")
    told = f"{in_words(found)}; limit {subject.section.min_kept:.0%}"
    return passed(told) if found.kept.value >= subject.section.min_kept else failed(told)


@ITEMS.item("weights-evaluated", OURS)
def _weights_evaluated(subject: Subject) -> Outcome:
    weights, records = subject.facts.weights, subject.facts.evaluation_of(subject.facts.last.model.name)
    if weights is None or not records:
        return not_measured("the published model has no evaluation")
    for record in records:
        digest = record.model.sha256 if record.model else ""
        # An engine rounds to the nearest: of rounded weights only these very ones, or those rounded so, were evaluated.
        as_engines_do = digest == weights.source_sha256 and weights.rounding != "stochastic"
        made = record.generation
        if digest == weights.sha256 or (as_engines_do and made is not None and made.dtype == weights.dtype):
            continue
        dtype = f" in {record.generation.dtype}" if record.generation else ""
        return failed(f"{record.score}: evaluated were weights {digest[:12]}…{dtype}, which are not what is published")
    return passed(f"evaluated were the published values, in {weights.dtype}")


@ITEMS.item("weights-reloaded", f"{USERS}: saving that fails silently")
def _weights_reloaded(subject: Subject) -> Outcome:
    reload = subject.found.reload
    if reload is None or not reload.trained:
        return not_measured("no log-probabilities were recorded for these weights")
    wrong = _far(reload.trained, reload.recorded)
    if wrong:
        return failed(f"log π of the reloaded model is not what training recorded: {wrong}")
    weights = subject.facts.weights
    wrong = _far(reload.published, reload.recorded) if weights is not None and weights.rounding == "none" else None
    if wrong:
        return failed(f"log π of the published model, of which nothing was rounded, is not the trained one's: {wrong}")
    error = max(abs(value - reload.recorded[row]) for row, value in reload.trained.items())
    rounded = max(abs(value - reload.recorded[row]) for row, value in reload.published.items())
    return passed(
        f"log π of {len(reload.trained)} rows: reloaded within {error:.2g} nats of the record; "
        f"of {len(reload.published)} rows: published within {rounded:.2g} of it"
    )


def _far(found: Mapping[str, float], recorded: Mapping[str, float]) -> str | None:
    for row, value in found.items():
        expected = recorded.get(row)
        if expected is None or not abs(value - expected) <= RELOAD_ABSOLUTE + RELOAD_RELATIVE * abs(expected):
            return f"row {row[:12]}… has {value:.6g}, not {expected}"
    return None


@ITEMS.item("safe-files", f"{HF} (safetensors); {USERS}: files flagged as unsafe")
def _safe_files(subject: Subject) -> Outcome:
    files = [path for path in subject.bundle.rglob("*") if path.is_file()]
    unsafe = sorted(path.name for path in files if path.suffix not in SAFE_SUFFIXES and not is_legal(path.name))
    if unsafe:
        return failed(f"{', '.join(unsafe)}: no file that can hold code may be published")
    if "auto_map" in read_object(subject.bundle / "config.json"):
        return failed("the model needs code of its own (auto_map in config.json), which no release may hold")
    if not any(path.suffix == ".safetensors" for path in files):
        return failed("there are no safetensors")
    return passed(f"{len(files)} files: weights as safetensors, nothing pickled, no code")


@ITEMS.item("one-model", f"{HF} (separate repositories); {USERS}: asked for one repository per checkpoint")
def _one_model(subject: Subject) -> Outcome:
    folders = {path.parent for path in subject.bundle.rglob("*.safetensors")}
    return passed("one set of weights") if folders == {subject.bundle} else failed("more than one set of weights")


@ITEMS.item("no-secrets", OURS)
def _no_secrets(subject: Subject) -> Outcome:
    secrets = subject.found.secrets
    if secrets is None:
        return not_measured("the files were not scanned")
    return failed("; ".join(secrets)) if secrets else passed("no token, key or path of this machine in any file")


@ITEMS.item("template-proved", f"{USERS}: two BOS tokens, other ids when served")
def _template_proved(subject: Subject) -> Outcome:
    number = subject.found.conversations
    if number is None:
        return not_measured("the template was not replayed")
    return passed(f"{number} conversations give the same ids before and after publishing")


@ITEMS.item("template-as-trained", f"{USERS}: another template than in training")
def _template_as_trained(subject: Subject) -> Outcome:
    prompt = subject.facts.prompt
    if prompt is None:
        return failed("there is no chat template beside the weights")
    if prompt.replaced:
        return not_measured(f"{prompt.template} replaces {prompt.trained_with}, as wished: the card calls it out")
    return passed(f"{prompt.template}, which it was trained with")
