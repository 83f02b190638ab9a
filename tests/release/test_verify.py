"""`kto-release verify`: what a stranger finds out about a release."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import yaml
from fake_hub import FakeHub
from keys import make_key
from releases import sha256_by_path
from run_builder import build_run

from kto_release.digests import file_sha256
from kto_release.errors import HubError, ReleaseError
from kto_release.files import write_record
from kto_release.judges.rows import read_rows
from kto_release.release import Options, publish, verify
from kto_release.release.manifest import MANIFEST, ReleaseFile, list_files, read_manifest
from kto_release.release.signing import SignWith, Trust
from kto_release.release.verify import Checked, check_release


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A signed bundle, and its maker's public key beside it as key.pub."""
    folder = tmp_path_factory.mktemp("release")
    run = build_run(folder, tiny_model, sections={"release": {"repo_id": "tester/tiny", "data_license": "mit"}})
    private, _ = make_key(folder)
    publish(run, dry_run=True, options=Options(sign=SignWith(key=private)))
    shutil.copytree(run.release_folder / "bundle", folder / "bundle")
    return folder


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(made / "bundle", tmp_path / "release")
    return tmp_path / "release"


def failures(folder: Path, trust: Trust | None = None) -> list[Checked]:
    checked = check_release(str(folder), trust=trust, rescore=True, apart=False)
    return [item for item in checked if item.state == "failed"]


@pytest.mark.slow
def test_an_untouched_release_passes(release: Path, made: Path) -> None:
    """Everything that can be checked passes; with the maker's key the release is authentic."""
    checked = check_release(str(release), rescore=True, trust=Trust(key=made / "key.pub"))
    assert {item.what: item.state for item in checked} == {
        "release.json": "passed",
        "files": "passed",
        "model.sig": "passed",
        "weights": "passed",
        "chat template": "passed",
        "records": "passed",
        "README.md": "passed",
        "scores of initial": "passed",
        "scores of iteration-1": "passed",
        "scores of iteration-2": "passed",
        "checks": "passed",
    }
    assert [item.evidence for item in checked if item.what == "model.sig"] == [
        "made by whom you trust: the release is authentic"
    ]
    assert [item.evidence for item in checked if item.what == "scores of iteration-2"] == [
        "win rate 60.00 from 20 judgements by tiny-judge"
    ]


@pytest.mark.slow
def test_a_signature_without_a_trusted_key_shows_no_maker(release: Path) -> None:
    """By the key in the release itself a signature is whole, and no more is said."""
    [found] = [item for item in check_release(str(release)) if item.what == "model.sig"]
    assert found.state == "passed"
    assert found.evidence == (
        "whole, by the key in the release itself (signing_key.pem); that it is authentic only your own copy of it"
        " shows: --key"
    )


def test_somebody_elses_key(release: Path, tmp_path: Path) -> None:
    """A release that somebody else signed is not authentic."""
    _, other = make_key(tmp_path, "other")
    [found] = failures(release, Trust(key=other))
    assert found.what == "model.sig"


@pytest.mark.slow
def test_any_flipped_byte_is_found_and_named(release: Path) -> None:
    """One bit of each of several bytes of every file, the first and the last among them: the file is named each time.

    Mutations that this finds: a manifest compared by its content only, a file without a hash, sizes instead of hashes.
    """
    tried = 0
    for name in [*sha256_by_path(release)]:
        path = release / name
        whole = path.read_bytes()
        places = {0, len(whole) - 1, *range(7, len(whole), max(1, len(whole) // 5))}
        for place in sorted(places):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << (place % 8)
            path.write_bytes(bytes(damaged))
            assert name in {item.what for item in failures(release)}, (name, place)
            tried += 1
        path.write_bytes(whole)
    assert failures(release) == []
    assert tried > 100


@pytest.mark.slow
def test_any_byte_of_an_unsigned_release_counts(release: Path) -> None:
    """Hashes alone, without the signature: random bytes of every file replaced by random others are found and named."""
    (release / "model.sig").unlink()
    chance = random.Random(5)
    tried = 0
    for name in sha256_by_path(release):
        path = release / name
        whole = path.read_bytes()
        for place in chance.sample(range(len(whole)), k=min(len(whole), 25)):
            damaged = bytearray(whole)
            damaged[place] ^= chance.randrange(1, 256)
            path.write_bytes(bytes(damaged))
            assert name in {item.what for item in failures(release)}, (name, place)
            tried += 1
        path.write_bytes(whole)
    assert failures(release) == []
    assert tried > 400


def test_longer_shorter_and_missing_files_are_named(release: Path) -> None:
    """Each file with a byte more, with a byte less, empty, and gone; and a new file in each folder."""
    (release / "model.sig").unlink()
    for name in sha256_by_path(release):
        path = release / name
        whole = path.read_bytes()
        for content in (whole + b" ", whole[:-1], b""):
            path.write_bytes(content)
            assert name in {item.what for item in failures(release)}, name
        path.unlink()
        told = {item.what: item.evidence for item in failures(release)}
        assert told.get(name, "") in (
            "missing",
            f"no release.json in {str(release)!r}: it is no release of kto-release",
        )
        path.write_bytes(whole)
    for folder in [release, *(path for path in release.rglob("*") if path.is_dir())]:
        (folder / "new.json").write_text("new")
        name = (folder / "new.json").relative_to(release).as_posix()
        assert (name, "failed", "not part of the release") in failures(release)
        (folder / "new.json").unlink()
    assert failures(release) == []


@pytest.mark.slow
def test_every_byte_of_the_manifest_counts(release: Path) -> None:
    """release.json has one spelling: each byte of it, spaces and line ends included, changed by one bit, is found."""
    path = release / "release.json"
    manifest = read_manifest(path)
    small = manifest.model_copy(update={"files": manifest.files[:2], "results": [], "chain": manifest.chain[:1]})
    whole = small.sealed().spelled().encode()
    path.write_bytes(whole)
    assert read_manifest(path).files == manifest.files[:2]
    unnoticed, told = [], set()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 7)
        path.write_bytes(bytes(damaged))
        try:
            read_manifest(path)
            unnoticed.append(place)
        except ReleaseError as error:
            told.add(error.problem.split(",")[0].split(":")[0])
    assert unnoticed == []
    assert told == {"release.json was changed after it was made"}


def test_a_missing_and_an_added_file_are_named(release: Path) -> None:
    """A file that is gone, and one that was put beside the others."""
    (release / "config.json").unlink()
    (release / "pytorch_model.bin").write_bytes(b"pickle")
    found = {item.what: item.evidence for item in failures(release)}
    assert found["config.json"] == "missing"
    assert found["pytorch_model.bin"] == "not part of the release"


def test_a_forged_manifest_is_found_by_the_signature(release: Path, made: Path) -> None:
    """Whoever changes a file *and* the manifest with its digest is found by the signature alone."""
    (release / "generation_config.json").write_text("{}\n")
    manifest = read_manifest(release / "release.json")
    files = [
        file.model_copy(update={"size": 3, "sha256": sha256_by_path(release)[file.path]})
        if file.path == "generation_config.json"
        else file
        for file in manifest.files
    ]
    (release / "release.json").write_text(manifest.model_copy(update={"files": files}).sealed().spelled())
    assert [item.what for item in failures(release)] == ["model.sig"]
    (release / "model.sig").unlink()
    assert [item.what for item in failures(release, Trust(key=made / "key.pub"))] == ["model.sig"]


def reseal(release: Path) -> None:
    """Make the manifest fit the files again, as a maker with wrong numbers would have it."""
    manifest = read_manifest(release / "release.json")
    (release / "model.sig").unlink(missing_ok=True)
    sealed = manifest.model_copy(update={"files": list_files(release)}).sealed()
    (release / "release.json").write_text(sealed.spelled())


def test_a_number_on_the_card_that_no_record_has(release: Path) -> None:
    """A card that says more than the records do is found, with the line."""
    card = release / "README.md"
    true = re.search(r"60\.0 \([\d.]+ to [\d.]+\)", card.read_text())[0]
    card.write_text(card.read_text().replace(true, "80.0 (57.5 to 99.5)"))
    reseal(release)
    [found] = failures(release)
    assert found.what == "README.md"
    assert "says what the records do not" in found.evidence
    assert true in found.evidence


@pytest.mark.slow
def test_a_release_with_alpaca_evals_scores(shared_data: Path, tmp_path: Path, tiny_model: Path) -> None:
    """With AlpacaEval's 805 real judgements: no instruction or reference answer is in the release, both rates come
    again from what is, and both are in the metadata and in .eval_results/.
    """
    from kto_release.evaluate.score_file import score_annotations

    source = shared_data / "alpaca_eval" / "annotations" / "claude-2.1.json.xz"
    data = shared_data / "alpaca_eval" / "hub" / "df_gamed.csv"
    release = {"repo_id": "tester/tiny", "data_license": "mit", "eval_results": True}
    run = build_run(tmp_path, tiny_model, sections={"release": release})
    own = run.eval_records()[-1][1]
    folder = run.eval_folder("iteration-2", "alpaca_eval") / "gpt4"
    folder.mkdir(parents=True)
    scored = score_annotations(source, folder, lc_data=data, bootstrap=100)
    model = run.iteration_records()[-1].model
    write_record(folder / "results.json", scored.model_copy(update={"model": model, "generation": own.generation}))
    publish(run, dry_run=True)
    bundle = run.release_folder / "bundle"
    checked = check_release(str(bundle), rescore=True, lc_data=data, apart=False)
    [rates] = [item.evidence for item in checked if item.what == "scores of iteration-2" and "805" in item.evidence]
    assert rates == f"win rate 15.73, length-controlled 25.25 from 805 judgements by {scored.judge.name}"
    assert [item for item in checked if item.state == "failed"] == []
    entries = yaml.safe_load((bundle / ".eval_results" / "alpaca_eval.yaml").read_text())
    assert [(entry["dataset"]["task_id"], entry["value"]) for entry in entries] == [
        ("win_rate", 15.73),
        ("length_controlled_winrate", 25.25),
    ]
    texts = "".join(
        path.read_text() for path in bundle.rglob("*") if path.suffix in (".json", ".jsonl", ".md", ".yaml")
    )
    rows = read_rows(source).rows
    assert [row.instruction for row in rows if len(row.instruction) > 30 and row.instruction[:60] in texts] == []
    assert [row.reference for row in rows if len(row.reference) > 30 and row.reference[:60] in texts] == []


def test_a_result_for_the_hub_that_no_record_has(release: Path) -> None:
    """What .eval_results/ says is compared with the records too."""
    (release / ".eval_results").mkdir()
    (release / ".eval_results" / "alpaca_eval.yaml").write_text("- value: 99.9\n")
    reseal(release)
    assert failures(release) == [
        (".eval_results/alpaca_eval.yaml", "failed", "line 1 says what the records do not: '- value: 99.9', not ''")
    ]


def test_a_score_that_the_judgements_do_not_give(release: Path) -> None:
    """--rescore finds a record whose win rate is not that of the released judgements."""
    path = release / "judgements" / "eval--iteration-2--sums--tiny-judge.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["preference"] = 1.0
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    reseal(release)
    assert [(item.what, item.evidence) for item in failures(release)] == [
        ("scores of iteration-2", "win rate 55.0000, not 60.0 from 20 judgements by tiny-judge")
    ]


def test_a_judgement_that_is_left_out(release: Path) -> None:
    """Fewer judgements than the record has are an error, not another score."""
    path = release / "judgements" / "eval--iteration-2--sums--tiny-judge.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    reseal(release)
    [found] = failures(release)
    assert found == ("scores of iteration-2", "failed", "19 judgements are scored, and the record has 20")


def test_a_template_that_gives_other_ids(release: Path) -> None:
    """A template changed by its maker after the test conversations were recorded is found by replaying them."""
    for name in ("chat_template.jinja", "chat_template.training.jinja", "tokenizer_config.json"):
        path = release / name
        path.write_text(path.read_text().replace("<|assistant|>", "<|bot|>"))
    reseal(release)
    assert [item.what for item in failures(release)] == ["chat template"]


def test_the_command_fails_with_every_difference(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command shows the table, and its one error names each file."""
    (release / "config.json").unlink()
    with pytest.raises(ReleaseError) as caught:
        verify(str(release))
    assert str(caught.value).startswith(
        f"{str(release)!r} is not the release that was made:\n  - config.json: missing\n"
    )
    assert "config.json" in capsys.readouterr().out


def test_a_folder_without_a_release(tmp_path: Path) -> None:
    """A folder that kto-release did not make is told as such."""
    [found] = failures(tmp_path)
    assert found.evidence == f"no release.json in {str(tmp_path)!r}: it is no release of kto-release"


@pytest.mark.slow
def test_a_repository_that_was_changed_on_the_hub(own_hub: FakeHub, release: Path) -> None:
    """By its id: what the Hub gives is compared with the manifest; each revision has its own answer."""
    files = {name: (release / name).read_bytes() for name in sha256_by_path(release)}
    repo = own_hub.create("tester/tiny", files=files)
    repo.tags["v1.0"] = repo.branches["main"]
    tree = {**repo.commits[repo.branches["main"]].tree}
    tree["README.md"] = own_hub.store("README.md", files["README.md"].replace(b"60.0", b"90.0"))
    repo.add_commit("main", "Better numbers", tree)
    with pytest.raises(ReleaseError, match=r"'tester/tiny' is not the release that was made:\n  - README.md: sha256 "):
        verify("tester/tiny")
    verify("tester/tiny", revision="v1.0")


def test_no_such_repository(own_hub: FakeHub) -> None:
    """A name that is neither a folder nor a repository."""
    with pytest.raises(HubError) as caught:
        verify("tester/nothing")
    assert str(caught.value).replace(own_hub.url, "HUB") == (
        "'tester/nothing' is no folder here, and can't be had from the Hub:"
        " the Hub knows no model 'tester/nothing', or keeps it private\n"
        "  expected: a folder, or the id of a repository that you can read\n"
        "  to do: mend the name or --revision; for a private repository: hf auth login"
    )


def forge(release: Path, files: list[ReleaseFile]) -> None:
    """The manifest with other files in it, as whole as a forger makes it: nothing is signed, every digest is right."""
    (release / "model.sig").unlink(missing_ok=True)
    manifest = read_manifest(release / MANIFEST)
    forged = manifest.model_copy(update={"files": sorted(files, key=lambda file: file.path)}).sealed()
    (release / MANIFEST).write_text(forged.spelled(), encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../outside.json", "a/../../b.json", "a\\b.json", "C:x.json", "./a.json", ""]
)
@pytest.mark.parametrize("place", ["files", "record", "judgements"])
def test_a_name_that_leads_out_of_the_release_is_not_opened(release: Path, place: str, name: str) -> None:
    """Wherever a manifest names a file; nothing is said of the file that it means."""
    plain = json.loads((release / MANIFEST).read_text())
    if place == "files":
        plain["files"][0]["path"] = name
    else:
        plain["results"][0][place] = name
    (release / MANIFEST).write_text(json.dumps(plain, indent=2))
    [found] = failures(release)
    assert found.what == MANIFEST
    assert f"{name!r} names no file within a release" in found.evidence


@pytest.mark.parametrize("name", ["modeling_tiny.py", "optimizer.pt", "weights.pkl", "run.sh", "model.bin"])
def test_a_listed_file_that_can_hold_code_fails(release: Path, name: str) -> None:
    """Also where the manifest lists it with the right hash."""
    (release / name).write_text("print()")
    listed = read_manifest(release / MANIFEST).files
    digest = file_sha256(release / name)
    forge(release, [*listed, ReleaseFile(path=name, size=7, sha256=digest)])
    assert (name, "a kind of file that can hold code, which no release has") in {
        (item.what, item.evidence) for item in failures(release)
    }


def test_a_link_out_of_the_release_is_not_followed(release: Path, tmp_path: Path) -> None:
    """A listed file that is a link to another place, with that file's hash in the manifest; and one that is not listed."""
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (release / "more.json").symlink_to(secret)
    listed = read_manifest(release / MANIFEST).files
    forge(release, [*listed, ReleaseFile(path="more.json", size=2, sha256=file_sha256(secret))])
    (release / "loose.json").symlink_to(tmp_path / "nothing")
    found = {(item.what, item.evidence) for item in failures(release)}
    assert ("more.json", "a link to another place, which is not opened") in found
    assert ("loose.json", "not part of the release") in found


@pytest.mark.parametrize(
    ("name", "stays"), [(".cache/x.json", False), (".cache/huggingface/x.json", True), (".git/x", True)]
)
def test_what_a_download_leaves_beside_is_passed_over(release: Path, name: str, stays: bool) -> None:
    """The folders of a clone and of the Hub's client, and no others."""
    (release / name).parent.mkdir(parents=True)
    (release / name).write_text("{}")
    assert [item.what for item in failures(release)] == ([] if stays else [name])
