"""What the files of a release say, compared with each other: every number is found twice, and must be the same.

Whoever makes a release writes all of it, so nothing here is believed that another file of it can contradict. Nothing is
opened that release.json does not list, and its files are whole when this begins.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from yaml import YAMLError

from kto_release.digests import sha256_of
from kto_release.errors import KtoReleaseError, ModelError, ReleaseError, ScoreError
from kto_release.lineage import LINEAGE
from kto_release.recipe import Recipe
from kto_release.records import EvalRecord, IterationRecord, ReloadFacts
from kto_release.release.allowed import CHECKLIST, FACTS, README, RECIPE, RELOAD
from kto_release.release.card import render_card
from kto_release.release.chat_template import replay
from kto_release.release.checklist import Checklist, checklist
from kto_release.release.checks.item import Checked, Found, Outcome, Subject, failed, not_measured, passed
from kto_release.release.described import describe, different
from kto_release.release.facts import CardFacts, collect_facts
from kto_release.release.manifest import MANIFEST, SIGNATURE, Manifest, read_manifest
from kto_release.release.model_index import EVAL_RESULTS, eval_results
from kto_release.release.readers import read_object
from kto_release.release.rescore import SAME, read_jsonl, rescore
from kto_release.yaml_text import parse_yaml

LARGEST = 50_000_000
"""Bytes of a file that is read as a whole here; real ones have a thousandth of it."""
NOT_SEEN = frozenset({"no-secrets", "signed", "safe-files", "one-model"})
"""Checks that see the maker's machine, or all files of a folder, at which `verify` looks by itself."""
RECORDED = [
    "run",
    "title",
    "repo_id",
    "summary",
    "limits",
    "language",
    "tags",
    "metrics",
    "stated_results",
    "emissions",
    "reference",
    "planned",
    "planned_sampling",
    "architecture",
    "prompt",
    "predecessor",
]
"""What records/card.json says again that recipe, records and the model's files say."""


class Request(NamedTuple):
    """What is to be looked at."""

    folder: Path
    rescore: bool = False
    """Compute length-controlled rates again too, which need data from the Hub."""
    lc_data: Path | None = None
    newer: bool = False
    """Whether a newer version made the release: its records are not read."""


class Records(NamedTuple):
    """What a release holds, read."""

    manifest: Manifest
    recipe: Recipe
    iterations: list[IterationRecord]
    evaluations: list[tuple[str, EvalRecord]]
    """By what they are called."""
    facts: CardFacts


def look(request: Request, begin: Callable[[str], None]) -> Iterator[Checked]:
    """Everything that the contents of a release show; `begin` is told before each thing that is looked at."""
    folder = request.folder
    begin("weights")
    yield Checked("weights", *_weights(folder, None if request.newer else read_manifest(folder / MANIFEST)))
    begin("chat template")
    count, outcome = _template(folder)
    yield Checked("chat template", *outcome)
    if request.newer or outcome.state == "failed":  # what follows loads the same tokenizer
        return
    begin("records")
    try:
        records = _read(folder)
    except (ReleaseError, OSError, ValueError, TypeError, RecursionError, YAMLError) as error:
        yield Checked("records", *failed(f"the records in the release can't be read: {_line(error)}"))
        return
    try:
        outcome = _records(folder, records)
    except (KtoReleaseError, RecursionError, OverflowError) as error:
        outcome = failed(f"they can't be compared: {_line(error)}")
    yield Checked("records", *outcome)
    begin(README)
    yield from _card(folder, records)
    for called, record in records.evaluations:
        begin(f"scores of {record.who}")
        yield Checked(f"scores of {record.who}", *_score(folder, called, record, request))
    begin("checks")
    yield Checked("checks", *_checks(folder, records, count))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _weights(folder: Path, manifest: Manifest | None) -> Outcome:
    """Every safetensors file opens, nothing asks for code, and the manifest describes these very weights."""
    for name in ("config.json", "tokenizer_config.json"):
        keys = read_object(folder / name).keys() & {"auto_map", "custom_pipelines"}
        if keys:
            return failed(f"{name} asks for code of its own ({', '.join(sorted(keys))})")
    try:
        values = _values(folder)
    except ReleaseError as error:
        return failed(error.problem)
    mapped = read_object(folder / "model.safetensors.index.json").get("weight_map")
    if mapped is not None and (not isinstance(mapped, dict) or mapped.keys() != values.keys()):
        return failed("model.safetensors.index.json names other tensors than there are")
    if manifest is None:
        return passed(f"{len(values)} tensors as safetensors")
    stated, parameters = manifest.weights, sum(values.values())
    listed = {file.path: file.sha256 for file in manifest.files if ".safetensors" in file.path}
    own = {name: digest for name, digest in listed.items() if name.endswith(".safetensors")}
    if stated.files != listed or stated.sha256 != sha256_of(own):
        return failed(f"{MANIFEST} describes other weights than those that it lists")
    if (stated.tensors, stated.parameters) != (len(values), parameters):
        told = f"{stated.tensors} tensors with {stated.parameters:,} values"
        return failed(f"{MANIFEST} says {told}, and there are {len(values)} with {parameters:,}")
    return passed(f"{len(values)} tensors with {parameters:,} values, as {MANIFEST} describes them")


def _values(folder: Path) -> dict[str, int]:
    """How many values each tensor has. Raises `ReleaseError` for a file that is no whole safetensors file, or none."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    found[name] = math.prod(file.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise ReleaseError(f"{path.name} is no whole safetensors file: {_line(error)}") from None
    if not found:
        raise ReleaseError("there are no safetensors")
    return found


def _template(folder: Path) -> tuple[int, Outcome]:
    """The token ids of the conversations in template_test.json, made again; how many there are."""
    try:
        count = replay(folder)
    except (ModelError, ReleaseError) as error:
        return 0, failed(str(error))
    except RecursionError:
        return 0, failed("a file of the tokenizer is nested too deeply to be read")
    return count, passed(f"{count} conversations give the recorded ids")


def _text(folder: Path, name: str) -> str:
    """A file of a release as text. Raises `ReleaseError` where it is larger than any real one."""
    path = folder / name
    if path.stat().st_size > LARGEST:
        raise ReleaseError(f"{name} has more than {LARGEST:,} bytes")
    return path.read_bytes().decode("utf-8")


def _read(folder: Path) -> Records:
    manifest = read_manifest(folder / MANIFEST)
    iterations = [
        IterationRecord.model_validate_json(_text(folder, f"records/iteration-{link.iteration}.json"))
        for link in manifest.chain
    ]
    evaluations = [
        (Path(result.record).stem, EvalRecord.model_validate_json(_text(folder, result.record)))
        for result in manifest.results
    ]
    if not iterations:
        raise ReleaseError(f"{MANIFEST} names no iteration")
    rest = json.loads(_text(folder, FACTS))
    more = {"iterations": iterations, "evaluations": [record for _, record in evaluations], "weights": manifest.weights}
    facts = CardFacts.model_validate({**rest, **more})
    recipe = Recipe.model_validate(parse_yaml(_text(folder, RECIPE)))
    return Records(manifest, recipe, iterations, evaluations, facts)


def _records(folder: Path, records: Records) -> Outcome:
    """release.json against the records, the chain against itself, records/card.json against both."""
    manifest = records.manifest
    made = describe(
        records.recipe.name,
        records.recipe.release.repo_id,
        manifest.made_by,
        records.iterations,
        records.evaluations,
        manifest.weights,
        manifest.files,
    )
    listed = {file.path for file in manifest.files}
    named = {f"records/iteration-{record.iteration}.json" for record in records.iterations}
    named |= {f"records/{called}.json" for called, _ in records.evaluations} | {FACTS, RELOAD, LINEAGE}
    judged = {f"judgements/{called}.jsonl" for called, _ in records.evaluations}
    unnamed = sorted(
        name for name in listed if name.startswith(("records/", "judgements/")) and name not in named | judged
    )
    wrong = [f"{name} is no record that {MANIFEST} names" for name in unnamed]
    wrong += [f"{MANIFEST}: {line}" for line in different(made, manifest)]
    wrong += [*_chain(records)]
    wrong += [*_card_facts(folder, records)]
    if wrong:
        return failed(_some(wrong))
    return passed(f"{MANIFEST} and {FACTS} say what {len(records.iterations) + len(records.evaluations)} records do")


def _chain(records: Records) -> Iterator[str]:
    iterations, weights = records.iterations, records.manifest.weights
    if [record.iteration for record in iterations] != [*range(1, len(iterations) + 1)]:
        yield "the iterations are not 1 to their number"
    for before, after in itertools.pairwise(iterations):
        if after.parent.sha256 != before.model.sha256:
            yield f"iteration {after.iteration} did not start from the model of iteration {before.iteration}"
    if weights.source_sha256 != iterations[-1].model.sha256:
        yield "the weights were not made from the last iteration's model"
    if weights.base_sha256 != iterations[0].parent.sha256:
        yield "the weights were compared with another initial model than the first iteration's"


def _card_facts(folder: Path, records: Records) -> Iterator[str]:
    facts, manifest, parent = records.facts, records.manifest, records.iterations[0].parent
    again = collect_facts(
        records.recipe.model_copy(
            update={"model": records.recipe.model.model_copy(update={"trust_remote_code": False})}
        ),
        records.iterations,
        [record for _, record in records.evaluations],
        weights=manifest.weights,
        kept=facts.kept,
        model=folder,
        revision=facts.revision,
        pictures=facts.pictures,
        lookup=lambda *_: None,
    )
    for key in RECORDED:
        if getattr(facts, key) != getattr(again, key):
            yield f"{FACTS}: {key} is not what recipe, records and model say"
    pairs = {
        "made_by": (facts.made_by, manifest.made_by),
        "base.sha256": (facts.base.sha256, parent.sha256),
        "base.parameters": (facts.base.parameters, parent.parameters),
    }
    if parent.hub_id is not None and not facts.base.traced:
        pairs["base.name"] = (facts.base.name, parent.hub_id)
    if facts.kept is not None:
        pairs["kept.sha256"] = (facts.kept.sha256, manifest.weights.sha256)
        pairs["kept.source_sha256"] = (facts.kept.source_sha256, manifest.weights.source_sha256)
    for key, (stated, right) in pairs.items():
        if stated != right:
            yield f"{FACTS}: {key} is {stated!r}, and the records say {right!r}"
    listed = {file.path for file in manifest.files}
    yield from (f"{FACTS}: there is no {name}" for name in facts.pictures if name not in listed)


def _card(folder: Path, records: Records) -> Iterator[Checked]:
    """README.md, and .eval_results/ where it is there, made again from the records in the release."""
    try:
        made = {README: render_card(records.facts)}
    except ReleaseError as error:
        problem = " ".join(line.strip() for line in error.problem.splitlines())
        yield Checked(README, *failed(f"no card can be made of {FACTS}: {problem}"))
        return
    if (folder / EVAL_RESULTS).is_file():
        made[EVAL_RESULTS] = eval_results(records.facts) or ""
    right = True
    for name, text in made.items():
        outcome = _same_text(text, _text(folder, name)) if (folder / name).is_file() else failed("missing")
        if outcome is not None:
            right = False
            yield Checked(name, *outcome)
    if right:
        count = len(records.iterations) + len(records.evaluations)
        yield Checked(README, *passed(f"every number is that of the {count} records"))


def _same_text(made: str, stated: str) -> Outcome | None:
    """The first line that differs; None where none does."""
    if made == stated:
        return None
    pairs = itertools.zip_longest(made.splitlines(keepends=True), stated.splitlines(keepends=True), fillvalue="")
    number, (right, wrong) = next((n, pair) for n, pair in enumerate(pairs, 1) if pair[0] != pair[1])
    return failed(f"line {number} says what the records do not: {_cut(wrong)}, not {_cut(right)}")


def _cut(line: str) -> str:
    line = line.rstrip("\n")
    return repr(line if len(line) <= 300 else line[:299] + "…")


def _score(folder: Path, called: str, record: EvalRecord, request: Request) -> Outcome:
    """Win rate, and with `rescore` the length-controlled one, computed again from the released judgements."""
    path = folder / "judgements" / f"{called}.jsonl"
    if not path.is_file():
        return not_measured("the judgements are not in this release")
    asked = record if request.rescore else record.model_copy(update={"length_controlled_winrate": None})
    try:
        again = rescore(read_jsonl(path), asked, request.lc_data)
    except (ReleaseError, ScoreError) as error:
        return failed(error.problem)
    pairs = {
        "win rate": (again.win_rate, record.win_rate),
        "length-controlled": (again.length_controlled_winrate, record.length_controlled_winrate),
    }
    pairs |= {f"interval of {name}": (one.value, getattr(record, name, None)) for name, one in record.intervals.items()}
    shown = [f"{name} {made:.2f}" for name, (made, _) in list(pairs.items())[:2] if made is not None]
    wrong = [
        f"{name} {made:.4f}, not {stated}"
        for name, (made, stated) in pairs.items()
        if made is not None and (stated is None or abs(made - stated) > SAME)
    ]
    if again.no_length_control:
        shown.append(f"length-controlled not checked: {again.no_length_control}")
    evidence = f"{', '.join(wrong or shown)} from {record.n_total} judgements by {record.judge.name}"
    return failed(evidence) if wrong else passed(evidence)


def _checks(folder: Path, records: Records, conversations: int) -> Outcome:
    """The checks of the release made again, as far as what is in it shows them, and compared with checklist.json."""
    try:
        stated = Checklist.model_validate_json(_text(folder, CHECKLIST))
        text = _text(folder, RELOAD) if (folder / RELOAD).is_file() else None
        reload = ReloadFacts.model_validate_json(text) if text is not None else None
    except (OSError, ValidationError, ReleaseError) as error:
        return failed(f"{CHECKLIST} or {RELOAD} can't be read: {_line(error)}")
    signed = (folder / SIGNATURE).is_file()
    found = Found(conversations=conversations, reload=reload, secrets=[], signed=signed)
    made = checklist(Subject(records.facts, records.recipe.release, folder, found))
    again = {check.name: check.state for check in made.checks}
    states = {check.name: check.state for check in stated.checks}
    wrong = [
        f"{check.name}: {check.evidence}"
        for check in made.checks
        if check.name not in NOT_SEEN and check.state == "failed" and states.get(check.name) != "failed"
    ]
    wrong += [
        f"{CHECKLIST} says that {check.name} passed, and it is {again[check.name]}"
        for check in stated.checks
        if check.name not in NOT_SEEN and check.state == "passed" and again.get(check.name) == "not measured"
    ]
    if wrong:
        return failed(_some(wrong))
    told = ", ".join(check.name for check in made.checks if check.state == "failed")
    outcome = not_measured(f"{CHECKLIST} itself says that {told} failed") if told else None
    return outcome or passed(
        f"{sum(check.state == 'passed' for check in made.checks)} of {len(made.checks)} hold here too"
    )


def _some(lines: list[str]) -> str:
    return "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
