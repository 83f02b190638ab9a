"""The card's facts from a real run directory: lineage, licences, the real template, and programs that run."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_builder import build_run
from seed_records import BASE, iterations, recipe

from kto_release.errors import ReleaseError
from kto_release.models import LocalModel, load_tokenizer, locate
from kto_release.records import FeedbackReport, ToldByFact
from kto_release.release.card import render_card
from kto_release.release.facts import CardFacts, collect_facts, hub_license, prompt_facts, trace
from kto_release.release.licenses import CardLicense
from kto_release.run import Run
from kto_release.templates import load_template, set_template


def facts_of(run: Run, **changes: Any) -> CardFacts:
    """Facts of a run's last iteration, as publishing collects them."""
    records = run.iteration_records()
    return collect_facts(
        run.recipe,
        records,
        [record for _, record in run.eval_records()],
        **({"base": locate(run.recipe.model.base), "model": run.iteration(len(records)) / "model"} | changes),
    )


def never(*_: object) -> CardLicense | None:
    """A lookup that must not happen."""
    raise AssertionError("nothing needed to be looked up")


def test_a_local_run_needs_nobody_else(tmp_path: Path, tiny_model: Path) -> None:
    """With a local model and local feedback the licence comes from the folder's card and the recipe, offline."""
    run = build_run(tmp_path, tiny_model, sections={"release": {"data_license": "mit"}})
    facts = facts_of(run, lookup=never)
    assert facts.license.id == "apache-2.0"
    assert [(source.part, source.name, source.id) for source in facts.license.sources] == [
        ("base model", "tiny", "apache-2.0"),
        ("data", "feedback.jsonl", "mit"),
    ]
    assert (facts.base.hub_id, facts.base.name, facts.base.traced) == (None, "tiny", False)
    card = render_card(facts)
    assert "base_model" not in yaml.safe_load(card.split("---")[1])
    assert "of the family `tiny` (a local folder; its ancestor on the Hub is not known)" in card


def test_feedback_without_a_stated_licence_leaves_auto_unresolved(tmp_path: Path, tiny_model: Path) -> None:
    """Files carry no licence: without release.data_license nothing is guessed, and the card says so."""
    facts = facts_of(build_run(tmp_path, tiny_model))
    assert facts.license.problem == (
        "the licence of 'feedback.jsonl' is not known, so release.license: auto can't be resolved: set "
        "release.data_license (a licence id, or `other` for private data of your own), or release.license"
    )
    card = render_card(facts)
    assert "## Licence\n\nNot resolved:\n- base model `tiny`: apache-2.0\n- data `feedback.jsonl`: not known\n" in card
    assert "license" not in yaml.safe_load(card.split("---")[1])


def test_hub_ids_come_from_the_records(tmp_path: Path, tiny_model: Path) -> None:
    """Base model and data set by their Hub ids, with their commits and the data's own licence."""
    run = build_run(
        tmp_path,
        tiny_model,
        base_hub_id="org/base",
        base_revision="a" * 40,
        data_hub_id="org/data",
        data_license="cc-by-nc-4.0",
    )
    plain = yaml.safe_load(render_card(facts_of(run)).split("---")[1])
    assert (plain["base_model"], plain["base_model_relation"]) == ("org/base", "finetune")
    assert (plain["datasets"], plain["license"]) == (["org/data"], "cc-by-nc-4.0")


def _folder(path: Path, front: str | None) -> LocalModel:
    path.mkdir(parents=True)
    if front is not None:
        (path / "README.md").write_text(f"---\n{front}\n---\n", encoding="utf-8")
    return LocalModel(path, path.name, None, None)


@pytest.mark.parametrize(
    ("front", "ancestor"),
    [
        ("base_model: org/older", "org/older"),
        ("base_model: [org/older]", "org/older"),
        ("base_model: [org/one, org/two]", None),
        ("base_model: None", None),
        ("base_model: ../other/folder", None),
        ("license: mit", None),
        (None, None),
    ],
)
def test_a_local_model_is_traced_to_what_its_card_names(
    tmp_path: Path, front: str | None, ancestor: str | None
) -> None:
    """A local folder's own card names the ancestor on the Hub; where it does not, none is invented."""
    parent = iterations(1)[0].parent.model_copy(update={"hub_id": None, "name": "initial"})
    found = trace(parent, _folder(tmp_path / "base", front))
    assert (found.hub_id, found.traced, found.name) == (ancestor, ancestor is not None, "base")


def test_a_model_of_another_run_is_traced_through_its_records(tmp_path: Path, tiny_model: Path) -> None:
    """A run that starts from another run's iteration descends from what that run started from: as its lineage says, and
    without one as its records do."""
    run = build_run(tmp_path, tiny_model, base_hub_id="org/base", evaluated=False)
    folder = run.iteration(2) / "model"
    parent = run.iteration_records()[0].parent.model_copy(update={"hub_id": None})
    for traced in (False, True):
        found = trace(parent, LocalModel(folder, "model", None, None))
        assert (found.hub_id, found.traced) == ("org/base", traced)
        (folder / "lineage.json").unlink(missing_ok=True)


def test_a_converted_copy_is_not_passed_off_as_the_original(tmp_path: Path) -> None:
    """A prepared copy that names itself as its base is that model, through a copy; a fetched one is itself."""
    parent = iterations(1)[0].parent
    copy = _folder(tmp_path / "copy", f"base_model: {BASE}")._replace(name=BASE, hub_id=BASE)
    fetched = _folder(tmp_path / "fetched", "base_model: mistralai/Mistral-7B-v0.1")._replace(name=BASE, hub_id=BASE)
    assert (trace(parent, copy).hub_id, trace(parent, copy).traced) == (BASE, True)
    assert (trace(parent, fetched).hub_id, trace(parent, fetched).traced) == (BASE, False)


def test_the_bases_licence_is_looked_up_where_no_file_states_it() -> None:
    """Without the base model's files its licence is asked for by Hub id and commit."""
    asked = []

    def lookup(hub_id: str, revision: str | None) -> CardLicense | None:
        asked.append((hub_id, revision))
        return CardLicense("apache-2.0")

    facts = collect_facts(recipe("release.license=auto"), iterations(), [], lookup=lookup)
    assert asked == [(BASE, "b" * 40)]
    assert facts.license.id == "apache-2.0"


def test_an_unreachable_hub_is_no_licence() -> None:
    """Offline and not in the cache: the licence is not known, which publishing then refuses."""
    assert hub_license(BASE, None) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"id": "org/base", "cardData": {"license": "llama3"}}, CardLicense("llama3")),
        ({"id": "org/base"}, None),
        (None, None),
    ],
)
def test_the_hub_states_the_bases_licence(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | None, expected: CardLicense | None
) -> None:
    """The licence is what the Hub's card data say; no card, or a Hub that knows no such model, is none."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer or {"error": "no such model"}).encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert hub_license("org/base", "b" * 40) == expected
        server.shutdown()
    assert asked == [f"/api/models/org/base/revision/{'b' * 40}"]


def test_no_iteration_no_card() -> None:
    """There is nothing to describe before the first iteration."""
    with pytest.raises(ReleaseError, match="no iteration is finished"):
        collect_facts(recipe(), [], [])


def test_an_unknown_citation_is_named() -> None:
    """A citation that does not exist is an error with the choices."""
    with pytest.raises(
        ReleaseError, match=r"no citation '.*missing\.bib'\n  expected: a \.bib file in UTF-8, or one of"
    ):
        collect_facts(recipe("release.citations=[missing.bib]"), iterations(), [], lookup=never_known)


def never_known(*_: object) -> CardLicense | None:
    return None


def test_an_own_citation_is_taken_from_its_file(tmp_path: Path) -> None:
    """A .bib file of the recipe stands on the card; one that is no BibTeX is refused."""
    (tmp_path / "own.bib").write_text("@misc{own2026,\n  title = {Our Work},\n}\n", encoding="utf-8")
    facts = collect_facts(recipe(f"release.citations=[{tmp_path}/own.bib]"), iterations(), [], lookup=never_known)
    assert facts.citations[-1] == "@misc{own2026,\n  title = {Our Work},\n}"
    (tmp_path / "own.bib").write_text("Our Work, 2026", encoding="utf-8")
    with pytest.raises(ReleaseError, match="is no BibTeX"):
        collect_facts(recipe(f"release.citations=[{tmp_path}/own.bib]"), iterations(), [], lookup=never_known)


def _mistral(folder: Path) -> Path:
    """A folder with Mistral's real tokenizer, as mistral_common carries it, and the tulu_v2 template."""
    data = Path(pytest.importorskip("mistral_common").__file__).parent / "data"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((data / "tokenizer.model.v1").read_bytes())
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": True,
        "tokenizer_class": "LlamaTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "eos_token_id": 2}),
        encoding="utf-8",
    )
    tokenizer = load_tokenizer(LocalModel(folder, "mistral", None, None))
    set_template(tokenizer, load_template("tulu_v2", tokenizer))
    tokenizer.save_pretrained(folder)
    return folder


def test_the_prompt_is_rendered_by_the_real_template(tmp_path: Path) -> None:
    """Mistral's tokenizer with tulu_v2: the seed's conversation, one BOS, which the tokenizer adds, and no EOS."""
    found = prompt_facts(recipe(), iterations(1)[0], _mistral(tmp_path / "mistral"))
    assert found is not None
    assert found.text == (
        "<|user|>\nHi! I'm looking for a cake recipe.\n<|assistant|>\nWhat kind of cake?</s>\n"
        "<|user|>\nChocolate cake.\n<|assistant|>\n"
    )
    assert (found.bos, found.tokenizer_adds_bos, found.ends_with_eos, found.stop, found.system) == (
        "<s>",
        True,
        False,
        ["</s>"],
        "supported",
    )


def test_a_template_other_than_the_recorded_one_is_told(tmp_path: Path, tiny_model: Path) -> None:
    """The published template's digest is compared with the record's; its name alone proves nothing."""
    run = build_run(tmp_path, tiny_model, evaluated=False)
    record, folder = run.iteration_records()[-1], run.iteration(2) / "model"
    same = prompt_facts(run.recipe, record, folder)
    assert same is not None
    assert (same.template, same.replaced) == ("base", False)
    other = run.recipe.model_copy(update={"release": run.recipe.release.model_copy(update={"template": "zephyr"})})
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}{% endfor %}", encoding="utf-8"
    )
    changed = prompt_facts(other, record, folder)
    assert changed is not None
    assert (changed.template, changed.trained_with, changed.replaced) == ("zephyr", "base", True)


def test_a_tokenizer_without_a_template_is_not_measured(tmp_path: Path, tiny_model: Path) -> None:
    """No template beside the weights: no prompt is made up."""
    folder = tmp_path / "bare"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert prompt_facts(recipe(), iterations(1)[0], folder) is None


def program(card: str, heading: str, folder: Path) -> str:
    """The program under a heading of the card, with the repository's name replaced by a folder."""
    block = re.search(rf"^{heading}.*?\n\n```python\n(.*?)\n```$", card, re.DOTALL | re.MULTILINE)
    assert block is not None
    assert block.group(1).count('"tester/tiny-kto"') == 1
    return block.group(1).replace('"tester/tiny-kto"', json.dumps(str(folder)))


def run_program(text: str, folder: Path) -> str:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def short_answers(run: Run) -> CardFacts:
    """Facts whose scores were made with answers of at most 8 tokens, so that the programs are quick."""
    facts = facts_of(run)
    quick = [
        record.model_copy(update={"generation": record.generation.model_copy(update={"max_tokens": 8})})
        for record in facts.evaluations
        if record.generation is not None
    ]
    return facts.model_copy(update={"evaluations": quick})


@pytest.mark.slow
def test_the_program_for_transformers_runs(tmp_path: Path, tiny_model: Path) -> None:
    """What the card tells people to run with Transformers answers, with the settings of the evaluation."""
    run = build_run(tmp_path, tiny_model)
    text = program(render_card(short_answers(run)), "With Transformers", run.iteration(2) / "model")
    assert "max_new_tokens=8, do_sample=True, temperature=0.7, top_p=0.95, top_k=0)" in text
    assert text.count('revision="main"') == 2
    assert 'dtype="auto"' in text  # these facts know no published weights
    assert run_program(text, tmp_path).strip()


@pytest.mark.vllm
@pytest.mark.slow
def test_the_program_for_vllm_runs(tmp_path: Path, tiny_model: Path, smollm2: Path) -> None:
    """What the card tells people to run with vLLM answers, here with a model whose shapes vLLM has kernels for."""
    pytest.importorskip("vllm")
    run = build_run(tmp_path, tiny_model)
    text = program(render_card(short_answers(run)), "With vLLM", smollm2)
    assert "SamplingParams(temperature=0.7, top_p=0.95, top_k=0, max_tokens=8)" in text
    # vLLM takes nine tenths of the memory unless told otherwise, which a machine that runs tests may not have free, and
    # compiles the model, which takes minutes on two cores.
    name = json.dumps(str(smollm2))
    text = text.replace(
        f"LLM({name}, ", f"LLM({name}, gpu_memory_utilization=0.2, max_model_len=512, enforce_eager=True, "
    )
    assert run_program(text, tmp_path).strip()


def test_the_card_says_what_the_feedback_is_like_and_what_of_it_was_left_out() -> None:
    """Users, languages, repeats, private texts and what tells the label; skipped rows and unused columns; no more where
    nothing was recorded."""
    trained = iterations()
    partition = trained[-1].partition.model_copy(update={"skipped": {"no label": 3}, "unused": {"score": 12}})
    trained[-1] = trained[-1].model_copy(update={"partition": partition})
    report = FeedbackReport(
        key="k", feedback=100, users=3, largest_user=0.5, models={}, languages={"en": 90, "de": 9, "": 1},
        system_prompts=0, repeated=2, near_duplicates=4, both_labels=1,
        private={"e-mail addresses": 3, "IP addresses": 0},
        told_by=[ToldByFact(name="length of the answer", auc=0.61), ToldByFact(name="date (later)", auc=None)],
    )  # fmt: skip
    section = recipe("release.license=apache-2.0")
    card = render_card(collect_facts(section, trained, [], lookup=lambda *_: None, feedback=report))
    assert (
        "63 prompts shared with train_iteration_9, 3 rows left out (no label); not trained on: `score` (12 rows)"
        in card
    )
    assert (
        "Of 100 answers that were looked at: 3 users, the largest gave 50.0%; languages: `en` 90.0%, `de` 9.0%; 2 repeat "
        "another, 4 are like an earlier one, 1 have both labels, 3 hold e-mail addresses. How well something that is not "
        "quality tells a desirable answer from another (AUC; 0.5 is not at all): length of the answer 0.61.\n" in card
    )
    assert "that were looked at" not in render_card(collect_facts(section, trained, [], lookup=lambda *_: None))
