"""`kto-release publish`, from a run directory to a repository that loads by its id."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import run_command
from fake_hub import FakeHub
from releases import TOKEN, sha256_by_path
from run_builder import build_run

from kto_release.errors import HubError, ModelError, RecipeError, ReleaseError, RunError
from kto_release.release import Options, publish
from kto_release.release.manifest import read_manifest
from kto_release.run import Run
from kto_release.templates.load import MARK

pytestmark = pytest.mark.slow

LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("tester/tiny-kto")
tokenizer = AutoTokenizer.from_pretrained("tester/tiny-kto")
ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi!"}], add_generation_prompt=True,
                                    return_tensors="pt", return_dict=True)
made = model.generate(**ids, max_new_tokens=5, do_sample=False)
print(model.dtype, ids["input_ids"].tolist(), made.shape[1] - ids["input_ids"].shape[1])
"""
LICENSED = {"release": {"repo_id": "tester/tiny-kto", "license": "mit", "data_license": "mit"}}


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Run:
    return build_run(tmp_path, tiny_model, sections=LICENSED)


def bundle_of(run: Run) -> Path:
    return run.release_folder / "bundle"


def environment(hub: FakeHub, home: Path, **more: str) -> dict[str, str]:
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HOME": str(home), "HF_HOME": str(home / "hf")}
    return {**os.environ, **own, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}


def everything_under(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_from_the_command_line_to_a_model_that_loads_by_its_id(
    hub: FakeHub, run: Run, cli: Path, tmp_path: Path, xet: bool
) -> None:
    """publish, load by id with transformers and generate, verify by id; the token stands in no output and no file."""
    if xet:
        hub.xet = tmp_path / "xet"
        hub.xet.mkdir()
    settings = environment(hub, tmp_path / "home", HF_HUB_DISABLE_XET="0" if xet else "1")

    def command(*arguments: str) -> str:
        done = subprocess.run(
            arguments, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    written = command(str(cli), "publish", str(run.saved_recipe))
    assert "Published\n" in written
    assert hub.repos["tester/tiny-kto"].files("main") == sha256_by_path(bundle_of(run))
    assert hub.repos["tester/tiny-kto"].private
    assert bool(hub.uploaded) is not xet
    loaded = command(sys.executable, "-c", LOAD)
    assert loaded.startswith("torch.bfloat16 [[")
    assert loaded.strip().endswith(" 5")
    written += loaded + command(str(cli), "verify", "tester/tiny-kto", "--rescore")
    assert "failed" not in written.split("Verifying")[1]
    again = command(str(cli), "publish", str(run.saved_recipe))
    assert "Published already: nothing was changed\n" in again
    assert TOKEN not in written + again
    assert TOKEN.encode() not in everything_under(tmp_path)


def test_a_dry_run_sends_nothing(
    own_hub: FakeHub, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--dry-run needs no token, lists every file with its hash and the card's metadata, and leaves a whole bundle."""
    monkeypatch.delenv("HF_TOKEN")
    publish(run, dry_run=True)
    shown = capsys.readouterr().out
    assert own_hub.writes() == []
    for name, digest in sha256_by_path(bundle_of(run)).items():
        line = next(line for line in shown.splitlines() if f" {name} " in line)
        assert digest[:12] in line
    assert f"tester/tiny-kto at {own_hub.url} (private)" in shown
    assert "\n  license: mit\n" in shown
    assert "\n  there is no tester/tiny-kto yet, or this token may not see it: it would be made, private\n" in shown
    assert shown.rstrip().endswith("Nothing was sent.")
    assert not (run.release_folder / "record.json").exists()


def test_a_dry_run_without_a_network(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """What can't be reached is said in one line, and everything else is shown."""
    publish(run, dry_run=True)
    assert (
        "\n  not compared with what the Hub holds: the connection to http://127.0.0.1:9 failed:"
        " [Errno 111] Connection refused\n"
    ) in capsys.readouterr().out


def test_a_dry_run_tells_what_would_change(own_hub: FakeHub, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that are new, changed, to be removed, and the same, against what the branch holds now."""
    publish(run)
    same = len(sha256_by_path(bundle_of(run)))
    capsys.readouterr()
    publish(run, dry_run=True)
    assert "\n  main holds exactly these files already\n" in capsys.readouterr().out
    repo = own_hub.repos["tester/tiny-kto"]
    commit = repo.resolve("main")
    assert commit is not None
    del commit.tree["config.json"]
    commit.tree["README.md"] = own_hub.store("README.md", b"other")
    commit.tree["old.bin"] = own_hub.store("old.bin", b"old")
    commit.tree["demo.gguf"] = own_hub.store("demo.gguf", b"GGUF")
    publish(run, dry_run=True)
    shown, told = capsys.readouterr()
    assert f"\n  on main: {same - 2} files stay as they are\n" in shown
    assert "\n  added by people, kept: demo.gguf\n" in shown
    assert "\n  new: config.json\n  changed: README.md\n" in shown
    assert "this would be refused: programs would read old.bin as parts of this release (--remove-others)" in told


def test_the_options_reach_the_hub(
    own_hub: FakeHub, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the command line: visibility, access, tag, branch, reading back, earlier iterations, a required check."""

    def command(*options: str) -> str:
        result = run_command(monkeypatch, capfd, "publish", run.saved_recipe, "--runs", run.path.parent, *options)
        assert result.code == (1 if "--require" in options else 0), result.err
        return result.out + result.err

    assert "signed: not measured" in command("--require", "signed")
    assert own_hub.repos == {}
    files = len(sha256_by_path(bundle_of(run)))
    shown = command("--revision", "dev", "--read-back", "--gated", "manual")
    repo = own_hub.repos["tester/tiny-kto"]
    assert f"verified: {files} files downloaded again and hashed; tokenizer and template" in shown
    assert (repo.files("main"), repo.files("dev")) == ({}, sha256_by_path(bundle_of(run)))
    assert (repo.private, repo.gated, repo.tags) == (True, "manual", {})
    command("--pr")
    assert repo.files("refs/pr/1") == sha256_by_path(bundle_of(run))
    assert repo.files("main") == {}
    command("--public", "--tag", "v2.0", "--each-iteration")
    assert repo.branches.keys() == {"main", "dev", "iteration-1", "refs/pr/1"}
    assert (repo.private, repo.tags) == (False, {"v2.0": repo.branches["main"]})
    head = repo.branches["iteration-1"]
    command("--iteration", "1", "--public")
    assert repo.branches["iteration-1"] == head


def test_the_record_says_what_was_sent_where(own_hub: FakeHub, run: Run) -> None:
    """release/record.json names commit, files and how they were verified; a second publish leaves it as it is."""
    publish(run, options=Options(tag="v1.0"))
    path = run.release_folder / "record.json"
    record = json.loads(path.read_text())
    files = sha256_by_path(bundle_of(run))
    repo = own_hub.repos["tester/tiny-kto"]
    assert record["commit"] == repo.branches["main"] == repo.tags["v1.0"]
    assert (record["files"], record["tag"], record["private"]) == (len(files), "v1.0", True)
    assert record["release_sha256"] == files["release.json"]
    saved = {
        check["name"]: check for check in json.loads((run.release_folder / "checklist.json").read_text())["checks"]
    }
    assert saved["staged"]["evidence"] == f"{len(files)} files at {record['commit'][:12]}…: {record['verified']}"
    assert (saved["staged"]["state"], saved["repository"]["state"]) == ("passed", "passed")
    before = path.read_bytes()
    publish(run, options=Options(tag="v1.0"))
    assert path.read_bytes() == before


def test_a_bundle_of_the_same_run_is_the_same(own_hub: FakeHub, run: Run) -> None:
    """Made again, the bundle is the same to the byte: no clock, no random number, no order of a folder in it."""
    publish(run, dry_run=True)
    first = sha256_by_path(bundle_of(run))
    publish(run, dry_run=True)
    assert sha256_by_path(bundle_of(run)) == first


def test_each_iteration_gets_a_branch(own_hub: FakeHub, run: Run) -> None:
    """--each-iteration publishes earlier iterations on branches, with their own weights and records only."""
    publish(run, options=Options(each_iteration=True))
    repo = own_hub.repos["tester/tiny-kto"]
    assert repo.branches.keys() == {"main", "iteration-1"}
    earlier = read_manifest(run.release_folder / "iteration-1" / "bundle" / "release.json")
    assert [link.iteration for link in earlier.chain] == [1]
    assert {result.model for result in earlier.results} == {"initial", "iteration-1"}
    assert repo.files("iteration-1")["model.safetensors"] != repo.files("main")["model.safetensors"]
    assert repo.files("iteration-1") == sha256_by_path(run.release_folder / "iteration-1" / "bundle")


def test_earlier_iterations_do_not_open_the_repository(own_hub: FakeHub, run: Run) -> None:
    """Where the last iteration can't be sent, the branches before it have not made anything public."""
    own_hub.fail("POST", "/commit/main", 500)
    with pytest.raises(HubError, match="promoting the release failed"):
        publish(run, options=Options(each_iteration=True, public=True, gated="auto"))
    repo = own_hub.repos["tester/tiny-kto"]
    assert "iteration-1" in repo.branches
    assert (repo.private, repo.gated, repo.files("main")) == (True, False, {})
    own_hub.failures.clear()
    publish(run, options=Options(each_iteration=True, public=True, gated="auto"))
    assert (repo.private, repo.gated) == (False, "auto")
    records = [run.release_folder / folder / "record.json" for folder in ("iteration-1", "")]
    assert [json.loads(path.read_text())["private"] for path in records] == [True, False]


def test_a_run_that_is_not_there(own_hub: FakeHub, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a run, a dry run says what is missing and where it would go, and publishing is one error."""
    other = Run(run.recipe.model_copy(update={"name": "other"}), run.path.parent / "other")
    publish(other, dry_run=True)
    shown = capsys.readouterr().out
    assert "other: not ready to be published\n  missing  iteration 1 of 2 is not trained: kto-release train\n" in shown
    assert "tester/tiny-kto at" in shown
    with pytest.raises(ReleaseError) as caught:
        publish(other)
    assert str(caught.value) == (
        "there is nothing to publish yet:\n"
        "  - iteration 1 of 2 is not trained: kto-release train\n"
        "  - iteration 2 of 2 is not trained: kto-release train\n"
        "  - no evaluation: kto-release eval (without it, the card says: not measured)\n"
        "  to do: kto-release train, then kto-release eval"
    )
    assert not other.path.exists()
    assert own_hub.requests == []


def test_half_a_run_is_not_published(own_hub: FakeHub, run: Run) -> None:
    """A run whose last iteration is missing is refused, unless an iteration is asked for by its number."""
    (run.iteration(2) / "record.json").unlink()
    with pytest.raises(ReleaseError, match="iteration 2 of 2 is not trained"):
        publish(run)
    assert own_hub.requests == []
    publish(run, options=Options(iteration=1))
    assert own_hub.repos["tester/tiny-kto"].branches.keys() == {"main", "iteration-1"}


def test_a_failed_check_stops_publishing(own_hub: FakeHub, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A secret in a record stops the release before anything is asked of the Hub; a dry run says so."""
    record = run.iteration_records()[-1]
    planted = record.model_copy(update={"template": "hf_" + "a1B2" * 9})
    (run.iteration(2) / "record.json").write_text(planted.model_dump_json())
    with pytest.raises(ReleaseError) as caught:
        publish(run)
    assert "no-secrets: failed: " in str(caught.value)
    assert "a1B2a1B2" not in str(caught.value)
    assert own_hub.requests == []
    publish(run, dry_run=True)
    assert "this would be refused. " in capsys.readouterr().err


def test_a_required_check_must_have_passed(own_hub: FakeHub, run: Run) -> None:
    """--require turns "not measured" into a refusal."""
    with pytest.raises(ReleaseError, match="signed: not measured"):
        publish(run, options=Options(require=("signed",)))
    assert own_hub.requests == []


@pytest.mark.parametrize("damage", ["weights", "base"])
def test_weights_that_are_not_those_recorded(own_hub: FakeHub, run: Run, tiny_model: Path, damage: str) -> None:
    """Weights changed after training, or another initial model, are told from those that the run was made with."""
    if damage == "weights":
        (run.iteration(2) / "model" / "model.safetensors").write_bytes(
            (run.iteration(1) / "model" / "model.safetensors").read_bytes()
        )
    else:
        record = run.iteration_records()[0]
        other = record.parent.model_copy(update={"sha256": "0" * 64})
        (run.iteration(1) / "record.json").write_text(record.model_copy(update={"parent": other}).model_dump_json())
    said = {
        "weights": (ModelError, "the weights of iteration-2 are not those on record"),
        "base": (RunError, "the initial model 'tiny' is not the one that the run was made with"),
    }
    with pytest.raises(said[damage][0], match=said[damage][1]):
        publish(run)
    assert own_hub.requests == []


def test_interrupted_building_leaves_the_old_bundle(
    own_hub: FakeHub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that can't be finished leaves the one before it whole, and no rest."""
    publish(run, dry_run=True)
    before = sha256_by_path(bundle_of(run))
    (run.eval_records()[0][0] / "annotations.json").write_text("not JSON")
    with pytest.raises(RunError, match=r"annotations\.json' is no JSON"):
        publish(run, dry_run=True)
    assert sha256_by_path(bundle_of(run)) == before
    assert sorted(path.name for path in run.release_folder.iterdir()) == ["bundle", "checklist.json"]


@pytest.mark.parametrize(
    ("release", "options", "message"),
    [
        (
            {"repo_id": "just-a-name"},
            Options(),
            "what the Hub would refuse: 1 problem\n  - release.repo_id: 'just-a-name' is no repository: namespace/name is expected",
        ),
        ({}, Options(pull_request=True, revision="dev"), "--pr opens a pull request to main, not to 'dev'"),
        ({}, Options(iteration=0), "--iteration 0: the recipe has no such one"),
        ({}, Options(iteration=3), "--iteration 3: the recipe has no such one"),
        ({}, Options(iteration=1, each_iteration=True), "--iteration and --each-iteration don't go together"),
    ],
)
def test_wishes_that_cant_be(run: Run, release: dict[str, Any], options: Options, message: str) -> None:
    """Impossible wishes are refused before anything is made."""
    changed = run.recipe.model_copy(update={"release": run.recipe.release.model_copy(update=release)})
    with pytest.raises(RecipeError) as caught:
        publish(Run(changed, run.path), options=options)
    assert caught.value.problem == message
    assert not run.release_folder.exists()


def test_the_licence_text_of_the_base_model(own_hub: FakeHub, run: Run, tiny_model: Path, tmp_path: Path) -> None:
    """A licence that is the base model's comes with its text; another one does not borrow it."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    (base / "LICENSE.txt").write_text("The text of the licence.\n")
    for license_id, text in (("apache-2.0", "The text of the licence.\n"), ("mit", None)):
        sections = {"model": {"base": str(base)}, "release": {"repo_id": "a/b", "license": license_id}}
        other = build_run(tmp_path / license_id, base, evaluated=False, sections=sections)
        publish(other, dry_run=True)
        path = bundle_of(other) / "LICENSE.txt"
        assert (path.read_text() if path.exists() else None) == text


def test_another_template_is_published_only_when_it_is_wished(own_hub: FakeHub, run: Run) -> None:
    """release.template needs --replace-template; then it is what is published, and the card's head says so."""
    section = run.recipe.release.model_copy(update={"template": "zephyr"})
    other = Run(run.recipe.model_copy(update={"release": section}), run.path)
    with pytest.raises(ReleaseError, match="release.template 'zephyr' is another chat template than 'base'"):
        publish(other)
    assert own_hub.requests == []
    publish(other, options=Options(replace_template=True))
    card = (bundle_of(run) / "README.md").read_text()
    assert "> 🛑 **The chat template was replaced: published is zephyr, trained with was base.**\n" in card, (
        "called out at the card's head"
    )
    assert "<|assistant|>\nWhat kind of cake?</s>\n<|user|>\nChocolate cake.</s>\n<|assistant|>\n\n```" in card
    assert json.loads((bundle_of(run) / "template_test.json").read_text())["conversations"][0]["ids"]


def test_a_template_without_marks_is_not_a_replaced_one(own_hub: FakeHub, tmp_path: Path, tiny_model: Path) -> None:
    """A model's own template, which has no marks and ends with a line end, is published as what it is."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    template = base / "chat_template.jinja"
    template.write_text(MARK.sub("", template.read_text()) + "\n")
    other = build_run(tmp_path / "run", base, evaluated=False, sections=LICENSED)
    publish(other, dry_run=True)
    assert "The chat template was replaced" not in (bundle_of(other) / "README.md").read_text()
    assert not (bundle_of(other) / "chat_template.training.jinja").exists()


def test_two_at_once(own_hub: FakeHub, run: Run) -> None:
    """A second process on the same run is refused while the first publishes."""
    with run.lock(), pytest.raises(RunError, match="is in use by another process"):
        publish(run)


def test_nothing_of_this_machine_is_in_the_bundle(own_hub: FakeHub, run: Run, tmp_path: Path) -> None:
    """No folder of this machine: not in the recipe, the records, the tokenizer's configuration or the card."""
    publish(run, dry_run=True)
    assert str(tmp_path).encode() not in everything_under(bundle_of(run))
    assert b"is_local" not in everything_under(bundle_of(run))


def test_no_text_of_the_instructions_is_in_the_bundle(own_hub: FakeHub, run: Run) -> None:
    """Judgements travel without instructions, answers and reference answers."""
    publish(run, dry_run=True)
    everything = everything_under(bundle_of(run))
    assert b"What is 1 plus 1?" not in everything
    assert b"iteration-2: 7" not in everything
    rows = (bundle_of(run) / "judgements" / "eval--iteration-2--sums--tiny-judge.jsonl").read_text().splitlines()
    assert len(rows) == 20
