"""Every item of the checklist says what it saw; a failed one, or a required one that did not pass, stops publishing."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from seed_records import (
    DATA,
    PROMPT,
    digest,
    evaluations,
    iterations,
    kept_facts,
    plain_evaluation,
    plain_iteration,
    recipe,
    seed_facts,
    thumbs_probe,
    weights,
)

from kto_release.errors import RecipeError, ReleaseError
from kto_release.feedback.partitions import HELD_OUT
from kto_release.recipe import Emissions
from kto_release.records import EvalRecord, IterationRecord, ReleaseRecord, ReloadFacts
from kto_release.release.card import write_card
from kto_release.release.checklist import (
    Check,
    Checklist,
    checklist,
    refuse,
    show_checklist,
    write_checklist,
)
from kto_release.release.checks.item import Found, Subject
from kto_release.release.facts import CardFacts

TO_SET = ": set release.data_license (a licence id, or `other` for private data of your own), or release.license"
RELOAD = ReloadFacts(
    source_sha256=digest("model 3"),
    sha256="5" * 64,
    recorded={"row-1": -100.0, "row-2": -50.0},
    trained={"row-1": -100.001, "row-2": -50.002},
    published={"row-1": -100.4, "row-2": -50.1},
    initial={"row-1": -120.0, "row-2": -60.0},
)
FOUND = Found(conversations=14, reload=RELOAD, secrets=[], signed=True)


def bundle(folder: Path, facts: CardFacts) -> Path:
    """A bundle with its card and something that looks like weights."""
    write_card(folder, facts)
    (folder / "model-00001-of-00003.safetensors").write_bytes(b"\0")
    return folder


def checked(folder: Path, facts: CardFacts | None = None, found: Found = FOUND, **section: Any) -> dict[str, Check]:
    """The checklist of a bundle with these facts, by name."""
    facts = facts or seed_facts()
    own = recipe().release.model_copy(update=section)
    made = checklist(Subject(facts, own, bundle(folder, facts), found))
    return {check.name: check for check in made.checks}


def test_the_checklist_of_a_good_release(tmp_path: Path) -> None:
    """A release with everything in order: what passes, and what no record can show."""
    facts = seed_facts().model_copy(
        update={
            "summary": "A model.",
            "limits": "Some.",
            "evaluations": [EvalRecord.model_validate(_evaluated_as_published(plain_evaluation(3)))],
        }
    )
    states = {name: check.state for name, check in checked(tmp_path, facts).items()}
    assert [name for name, state in states.items() if state == "failed"] == []
    assert [name for name, state in states.items() if state == "not measured"] == [
        "tokens-within-embedding",
        "card-snippets-run",
        "card-visuals",
        "carbon",
        "better-than-initial",
        "no-regressions",
        "staged",
        "repository",
        "new-version",
        "collection",
        "demo",
        "quantized",
        "after-release",
    ]
    assert [name for name, state in states.items() if state == "passed"] == [
        "iterations-finished",
        "lineage-unbroken",
        "reference-right",
        "weights-complete",
        "weights-shapes",
        "weights-finite",
        "weights-filled",
        "weights-changed",
        "training-kept",
        "weights-evaluated",
        "weights-reloaded",
        "safe-files",
        "one-model",
        "no-secrets",
        "template-proved",
        "template-as-trained",
        "reads-everywhere",
        "metadata-valid",
        "metadata-complete",
        "license",
        "base-model",
        "datasets",
        "results-in-metadata",
        "card-description",
        "card-usage",
        "card-specifications",
        "card-limits",
        "card-papers",
        "evaluated",
        "evaluation-complete",
        "judge-reliable",
        "not-gamed",
        "held-out-accuracy",
        "no-overlap",
        "visibility",
        "signed",
    ]


def _evaluated_as_published(plain: dict[str, Any]) -> dict[str, Any]:
    """The evaluation of the published weights themselves."""
    plain["model"]["sha256"] = weights().sha256
    return plain


COMPLAINTS = [
    "metadata refused after gigabytes were sent",
    "wrong or missing licences",
    "a base model lost on local paths",
    "results in no format that the Hub reads",
    "uploads that hang, and half a release on main",
    "no rights, found out after hours",
    "files flagged as unsafe",
    "no signatures",
    "asked for paper links afterwards",
    "asked for one repository per checkpoint",
]
HUGGING_FACE = [
    "separate repositories",
    "safetensors",
    "metadata",
    "description",
    "usage examples",
    "specifications",
    "performance metrics",
    "limitations and biases",
    "library",
    "pipeline tag",
    "papers",
    "collections",
    "demo",
    "quantised versions",
    "linking datasets",
    "new version",
    "visual examples",
    "carbon emissions",
    "visibility",
    "gated access",
    "verify snippets",
    "sharing",
    "community",
    "usage",
]


def test_every_item_says_where_it_comes_from(tmp_path: Path) -> None:
    """No check without evidence and an origin; names are unique."""
    made = checked(tmp_path)
    assert all(check.evidence and check.asked_by for check in made.values())
    assert [complaint for complaint in COMPLAINTS if complaint not in str([*made.values()])] == []
    assert [asked for asked in HUGGING_FACE if f"({asked}" not in str([*made.values()]).replace(", ", " (")] == []


def test_the_documentation_names_every_check(tmp_path: Path) -> None:
    """docs/model-card.md lists exactly the checks that there are, in their order."""
    text = (Path(__file__).parents[2] / "docs" / "model-card.md").read_text(encoding="utf-8")
    table = text.split("| check | passes where |")[1].split("\n\n")[0]
    firsts = [line.split("|")[1] for line in table.strip().splitlines()]
    named = [name for first in firsts for name in re.findall(r"`([a-z-]+)`", first)]
    assert named == list(checked(tmp_path))


Change = Callable[[dict[str, Any]], None]


def iteration_with(change: Change, number: int = 3) -> CardFacts:
    """Facts whose iteration `number` is changed."""
    plain = [plain_iteration(one) for one in (1, 2, 3)]
    change(plain[number - 1])
    return seed_facts(iterations=[IterationRecord.model_validate(one) for one in plain])


def evaluation_with(change: Change, *, initial: bool = True) -> CardFacts:
    """Facts whose published model's evaluation is changed."""
    plain = plain_evaluation(3)
    change(plain)
    records = evaluations(2) if initial else []
    return seed_facts(evaluations=[*records, EvalRecord.model_validate(plain)])


def put(*path: Any) -> Change:
    """Put the last of `path` where the others lead."""
    *keys, last, value = path

    def change(plain: dict[str, Any]) -> None:
        node = plain
        for key in keys:
            node[key] = copy.deepcopy(node[key])
            node = node[key]
        node[last] = value

    return change


def weighed(**changes: Any) -> CardFacts:
    return seed_facts(weights=weights(**changes))


SCORE = "AlpacaEval 2.0 win rate, judged by gpt-4.1-2025-04-14"
FORBIDDEN = f"data {DATA}: cc-by-nc-4.0 forbids commercial use, which apache-2.0 allows"
CASES: list[tuple[CardFacts, str, str, str]] = [
    # facts, name of the check, its state, its evidence
    (
        seed_facts(iterations=iterations(2)),
        "iterations-finished",
        "not measured",
        "2 of 3 iterations: the card calls it out",
    ),
    (
        iteration_with(put("parent", "sha256", "0" * 64), 2),
        "lineage-unbroken",
        "failed",
        "iteration 2 did not start from the model of iteration 1",
    ),
    (
        weighed(source_sha256="0" * 64),
        "lineage-unbroken",
        "failed",
        "the published weights were not made from the last iteration's model",
    ),
    (
        iteration_with(put("training", "first", {"loss": 0.5, "kl": 0.7}), 2),
        "reference-right",
        "failed",
        "iteration 2: z is 0.7 at the first step, not 0",
    ),
    (
        iteration_with(put("training", "first", {"loss": 0.43, "kl": 0.0}), 3),
        "reference-right",
        "failed",
        "iteration 3: the first loss is 0.43, not half the mean weight",
    ),
    (
        iteration_with(put("training", "first", {}), 3),
        "reference-right",
        "not measured",
        "iteration 3 recorded no loss and z of its first step",
    ),
    (seed_facts(weights=None), "weights-finite", "not measured", "the weights were not looked at"),
    (weighed(missing=["lm_head.weight"]), "weights-complete", "failed", "missing: lm_head.weight"),
    (weighed(unexpected=["extra"]), "weights-complete", "failed", "unexpected: extra"),
    (weighed(wrong_shape=["a: [1], not [2]"]), "weights-shapes", "failed", "shape: a: [1], not [2]"),
    (weighed(not_finite=["a"]), "weights-finite", "failed", "finite: a"),
    (weighed(empty=["a"]), "weights-filled", "failed", "empty: a"),
    (
        weighed(changed_share=0.0),
        "weights-changed",
        "failed",
        "changed: the published weights are the initial model's: there is nothing to release",
    ),
    (
        seed_facts(kept=kept_facts(0.9)),
        "training-kept",
        "passed",
        "90.0% of the training (88.0 to 92.0, n = 64), with a noise of 0.25 nats per answer; limit 90%",
    ),
    (
        seed_facts(kept=kept_facts(0.89)),
        "training-kept",
        "failed",
        "89.0% of the training (87.0 to 91.0, n = 64), with a noise of 0.25 nats per answer; limit 90%",
    ),
    (
        seed_facts(kept=None, weights=weights(rounding="none", dtype="float32")),
        "training-kept",
        "passed",
        "nothing is rounded: the published float32 values are the trained ones",
    ),
    (seed_facts(kept=None), "training-kept", "not measured", "training recorded no rows that tell what rounding keeps"),
    (seed_facts(evaluations=[]), "weights-evaluated", "not measured", "the published model has no evaluation"),
    (seed_facts(), "weights-evaluated", "passed", "evaluated were the published values, in bfloat16"),
    (
        seed_facts(weights=weights(rounding="nearest")),
        "weights-evaluated",
        "passed",
        "evaluated were the published values, in bfloat16",
    ),
    (
        seed_facts(weights=weights(rounding="stochastic")),
        "weights-evaluated",
        "failed",
        f"{SCORE}: evaluated were weights {digest('model 3')[:12]}… in bfloat16, which are not what is published",
    ),
    (
        evaluation_with(put("generation", "dtype", "float32")),
        "weights-evaluated",
        "failed",
        f"{SCORE}: evaluated were weights {digest('model 3')[:12]}… in float32, which are not what is published",
    ),
    (
        evaluation_with(put("model", "sha256", "9" * 64)),
        "weights-evaluated",
        "failed",
        f"{SCORE}: evaluated were weights 999999999999… in bfloat16, which are not what is published",
    ),
    (seed_facts(prompt=None), "template-as-trained", "failed", "there is no chat template beside the weights"),
    (
        seed_facts(prompt=PROMPT.model_copy(update={"template": "chatml", "replaced": True})),
        "template-as-trained",
        "not measured",
        "chatml replaces tulu_v2, as wished: the card calls it out",
    ),
    (seed_facts(evaluations=[]), "evaluated", "not measured", "no answers of the published model were judged"),
    (
        evaluation_with(put("intervals", {})),
        "evaluated",
        "failed",
        f"a score without an interval: {SCORE}",
    ),
    (
        evaluation_with(lambda plain: plain.update(partial=True, n_missing=5, n_failed=2)),
        "evaluation-complete",
        "not measured",
        "5 missing, 2 failed",
    ),
    (
        evaluation_with(lambda plain: plain.update(reliable=False, unreliable_because=["a toy", "few"])),
        "judge-reliable",
        "not measured",
        "a toy; few",
    ),
    (
        evaluation_with(put("gamed", ["one answer for all"])),
        "not-gamed",
        "not measured",
        "the score may be gamed, and the card says so: one answer for all",
    ),
    (
        seed_facts(),
        "better-than-initial",
        "passed",
        "29.4 (26.8 to 32.2, n = 805), the initial model 14.5 to 19.9",
    ),
    (
        evaluation_with(put("intervals", "win_rate", "low", 19.0)),
        "better-than-initial",
        "not measured",
        "not distinguishable: 29.4 (19.0 to 32.2, n = 805), the initial model 14.5 to 19.9",
    ),
    (
        evaluation_with(lambda plain: plain["intervals"]["win_rate"].update(low=8.0, high=14.0)),
        "better-than-initial",
        "failed",
        "29.4 (8.0 to 14.0, n = 805), the initial model 14.5 to 19.9",
    ),
    (
        evaluation_with(put("n_failed", 0), initial=False),
        "better-than-initial",
        "not measured",
        "the initial model was not evaluated",
    ),
    (
        evaluation_with(put("instructions_sha256", "0" * 64)),
        "better-than-initial",
        "not measured",
        "the initial model was not evaluated",
    ),
    (
        evaluation_with(lambda plain: plain.update(reliable=False, unreliable_because=["a toy"])),
        "better-than-initial",
        "not measured",
        "the score is not to be relied on",
    ),
    (
        evaluation_with(put("reference", "initial"), initial=False),
        "better-than-initial",
        "failed",
        "29.4 (26.8 to 32.2, n = 805), the initial model 50.0",
    ),
    (
        iteration_with(put("probe", "preference_accuracy", None)),
        "held-out-accuracy",
        "not measured",
        "no held-out pairs, and fewer than 30 held-out answers of either label",
    ),
    (
        iteration_with(put("probe", thumbs_probe(3))),
        "held-out-accuracy",
        "passed",
        "AUC 71.0% (60.2% to 80.3%, n = 150)",
    ),
    (seed_facts(), "held-out-accuracy", "passed", "preference accuracy 64.0% (60.1% to 68.2%, n = 994)"),
    (
        iteration_with(put("probe", "preference_accuracy", "low", 0.5)),
        "held-out-accuracy",
        "not measured",
        "not above one half: preference accuracy 64.0% (50.0% to 68.2%, n = 994)",
    ),
    (
        iteration_with(
            put("probe", "preference_accuracy", {"value": 0.4, "low": 0.3, "high": 0.49, "n": 994, "method": "Wilson"})
        ),
        "held-out-accuracy",
        "failed",
        "below one half: preference accuracy 40.0% (30.0% to 49.0%, n = 994)",
    ),
    (
        iteration_with(put("partition", "overlaps", {HELD_OUT: 4, "train_iteration_1": 7})),
        "no-overlap",
        "not measured",
        "how it does on unseen prompts: 4 held-out prompts are among the training prompts",
    ),
    (
        evaluation_with(put("screening", {"trained_on": 3})),
        "no-overlap",
        "not measured",
        "how it does on unseen prompts: 3 instructions of the evaluation are among the training prompts",
    ),
    (
        iteration_with(put("partition", "overlaps", {"held out": 0, "alpaca_eval": 2})),
        "no-overlap",
        "not measured",
        "how it does on unseen prompts: 2 instructions of the evaluation are among the training prompts",
    ),
    (
        evaluation_with(put("screening", {})),
        "no-overlap",
        "not measured",
        "training prompts were not compared with the evaluation's instructions",
    ),
    (
        iteration_with(put("partition", "overlaps", {"train_iteration_1": 0})),
        "no-overlap",
        "not measured",
        "training prompts were not compared with held-out prompts",
    ),
    (
        evaluation_with(put("reference", "mistralai/Mistral-7B-Instruct-v0.2"), initial=False),
        "better-than-initial",
        "failed",
        "29.4 (26.8 to 32.2, n = 805), the initial model 50.0",
    ),
]


@pytest.mark.parametrize(("facts", "name", "state", "evidence"), CASES)
def test_one_item(tmp_path: Path, facts: CardFacts, name: str, state: str, evidence: str) -> None:
    """What one item says of one defect, or of its absence."""
    check = checked(tmp_path, facts)[name]
    assert (check.state, check.evidence) == (state, evidence)


def test_bad_metadata_fails_before_there_is_a_card(tmp_path: Path) -> None:
    """Metadata that the Hub would refuse, and the card that then can't be written, are both named."""
    facts = seed_facts(language=["English"])
    made = {check.name: check for check in checklist(Subject(facts, recipe().release, tmp_path, FOUND)).checks}
    assert made["metadata-valid"].evidence == "language: 'English' is no ISO 639 code"
    assert (made["card-usage"].state, made["card-usage"].evidence) == ("failed", "there is no card")
    assert (made["safe-files"].state, made["safe-files"].evidence) == ("failed", "there are no safetensors")


@pytest.mark.parametrize(
    ("license_id", "override", "data_license", "state", "evidence"),
    [
        ("apache-2.0", None, "apache-2.0", "passed", "apache-2.0, stated, fits base model and data"),
        ("auto", None, "mit", "passed", "apache-2.0, resolved, fits base model and data"),
        (
            "apache-2.0",
            None,
            None,
            "not measured",
            f"apache-2.0 is stated; the licence of {DATA} is not known",
        ),
        (
            "auto",
            None,
            None,
            "failed",
            f"the licence of '{DATA}' is not known, so release.license: auto can't be resolved{TO_SET}",
        ),
        (
            "apache-2.0",
            None,
            "cc-by-nc-4.0",
            "failed",
            f"release.license 'apache-2.0' conflicts with what the release is made of; {FORBIDDEN}",
        ),
        (
            "apache-2.0",
            "We may.",
            "cc-by-nc-4.0",
            "passed",
            f"apache-2.0, overriding {FORBIDDEN}: We may.",
        ),
    ],
)
def test_the_licence(
    tmp_path: Path, license_id: str, override: str | None, data_license: str | None, state: str, evidence: str
) -> None:
    """Resolved, stated, unknown, in conflict, overridden."""
    plain = [plain_iteration(number) for number in (1, 2, 3)]
    for one in plain:
        one["partition"]["licenses"] = dict.fromkeys(one["partition"]["licenses"], data_license)
    settings = [f"release.license={license_id}", *([f"release.license_override={override}"] if override else [])]
    facts = seed_facts(recipe=recipe(*settings), iterations=[IterationRecord.model_validate(one) for one in plain])
    check = checked(tmp_path, facts)["license"]
    assert (check.state, check.evidence) == (state, evidence)


def test_the_reloaded_model_must_give_what_was_recorded(tmp_path: Path) -> None:
    """Log-probabilities of the trained weights as recorded, and those of the published ones near them."""
    same = checked(tmp_path)["weights-reloaded"]
    assert (same.state, same.evidence) == (
        "passed",
        "log π of 2 rows: reloaded within 0.002 nats of the record; of 2 rows: published within 0.4 of it",
    )
    for change, evidence in (
        ({"trained": {"row-1": -100.0, "row-2": -51.0}}, "log π of the reloaded model is not what training recorded"),
        ({"trained": {"row-3": -100.0}}, "log π of the reloaded model is not what training recorded"),
        ({"trained": {"row-1": math.nan}}, "log π of the reloaded model is not what training recorded"),
    ):
        found = FOUND._replace(reload=RELOAD.model_copy(update=change))
        check = checked(tmp_path, found=found)["weights-reloaded"]
        assert check.state == "failed"
        assert check.evidence.startswith(evidence)
    assert checked(tmp_path, found=FOUND._replace(reload=None))["weights-reloaded"].state == "not measured"
    unrounded = seed_facts(weights=weights(rounding="none", dtype="float32"), kept=None)
    far = FOUND._replace(reload=RELOAD.model_copy(update={"published": {"row-1": -110.0}}))
    check = checked(tmp_path, unrounded, found=far)["weights-reloaded"]
    assert (check.state, check.evidence) == (
        "failed",
        "log π of the published model, of which nothing was rounded, is not the trained one's: "
        "row row-1… has -110, not -100.0",
    )


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "weights.pkl", "modeling.py", "run.log"])
def test_a_file_that_can_hold_code_is_refused(tmp_path: Path, name: str) -> None:
    """Pickles, optimizer state, code and logs fail the release, by name."""
    (tmp_path / name).write_bytes(b"")
    check = checked(tmp_path)["safe-files"]
    assert (check.state, check.evidence) == ("failed", f"{name}: no file that can hold code may be published")


def test_secrets_and_a_second_model_are_refused(tmp_path: Path) -> None:
    """What the scan found fails the release; so do weights in a folder of their own."""
    found = FOUND._replace(secrets=["README.md, line 3: a Hugging Face token"])
    assert checked(tmp_path, found=found)["no-secrets"].evidence == "README.md, line 3: a Hugging Face token"
    assert checked(tmp_path, found=found)["no-secrets"].state == "failed"
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8" / "model.safetensors").write_bytes(b"")
    assert checked(tmp_path)["one-model"].state == "failed"


def test_emissions_that_the_recipe_states(tmp_path: Path) -> None:
    """Emissions pass where somebody measured them, with how; else the hours are the evidence."""
    assert (
        checked(tmp_path)["carbon"].evidence == "emissions are not measured; the card has 6.00 hours and the hardware"
    )
    stated = seed_facts().model_copy(update={"emissions": Emissions(grams=12500, source="codecarbon 3.0")})
    made = checked(tmp_path, stated)["carbon"]
    assert (made.state, made.evidence) == (
        "passed",
        "12500 g of CO2 equivalents, by codecarbon 3.0, as the recipe states",
    )


def test_what_nobody_looked_at_is_not_measured(tmp_path: Path) -> None:
    """Without findings of the other parts nothing passes by itself."""
    made = checked(tmp_path, found=Found())
    assert {made[name].state for name in ("no-secrets", "template-proved", "weights-reloaded", "signed", "staged")} == {
        "not measured"
    }


def test_publishing_itself_is_checked_afterwards(tmp_path: Path) -> None:
    """With the record of the release, staging and rights have passed, with what was verified as the evidence."""
    record = ReleaseRecord(
        finished="2026-03-20T12:00:00+00:00",
        repo_id="org/model",
        endpoint="https://huggingface.co",
        commit="a" * 40,
        tag=None,
        private=True,
        pull_request=None,
        release_sha256="b" * 64,
        files=20,
        bytes=1,
        verified="every file read back",
        environment=iterations(1)[0].environment,
    )
    made = checked(tmp_path, found=FOUND._replace(published=record), repo_id="org/model", predecessor="org/old")
    assert (made["staged"].state, made["staged"].evidence) == (
        "passed",
        "20 files at aaaaaaaaaaaa…: every file read back",
    )
    assert (made["repository"].state, made["new-version"].state) == ("passed", "passed")


def _list(**states: str) -> Checklist:
    return Checklist(
        made_by="kto-release",
        checks=[
            Check.model_validate({"name": name, "state": state.replace("_", " "), "evidence": "e", "asked_by": "a"})
            for name, state in states.items()
        ],
    )


def test_a_failed_check_stops_publishing() -> None:
    """All failed checks at once; what was not measured stops nothing by itself."""
    refuse(_list(one="passed", two="not_measured"))
    with pytest.raises(ReleaseError) as caught:
        refuse(_list(one="failed", two="not_measured", three="failed"))
    assert str(caught.value) == (
        "2 checks of the release stop it:\n  - one: failed: e\n  - three: failed: e\n"
        "  to do: mend what they name, then publish again"
    )


def test_a_required_check_must_have_passed() -> None:
    """--require makes a check necessary that was not measured; an unknown name is an error with the choices."""
    refuse(_list(one="passed", two="not_measured"), ["one"])
    with pytest.raises(ReleaseError, match=r"1 check of the release stops it:\n  - two: not measured: e"):
        refuse(_list(one="passed", two="not_measured"), ["two", "two"])
    with pytest.raises(RecipeError, match=r"--require three: no such check\n  expected: some of one, two"):
        refuse(_list(one="passed", two="passed"), ["three"])


def test_the_checklist_is_saved_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """checklist.json holds every item; the console shows failures last, and counts."""
    made = _list(one="failed", two="passed", three="not_measured")
    write_checklist(tmp_path, made)
    plain = json.loads((tmp_path / "checklist.json").read_text(encoding="utf-8"))
    assert plain["checks"][0] == {"name": "one", "state": "failed", "evidence": "e", "asked_by": "a"}
    show_checklist(made)
    shown = capsys.readouterr().out
    assert shown.index("✓ passed") < shown.index("– not measured") < shown.index("✗ failed")
    assert "1 passed, 1 not measured, 1 failed" in shown
