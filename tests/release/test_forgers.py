"""`kto-release verify` against whoever makes a release to deceive: every digest is right, and something is not true."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_builder import build_run

from kto_release.digests import sha256_of
from kto_release.errors import ReleaseError
from kto_release.release import publish
from kto_release.release.manifest import MANIFEST, Manifest, list_files, read_any
from kto_release.release.verify import check_release

pytestmark = pytest.mark.slow

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("forgers")
    run = build_run(folder, tiny_model, sections={"release": {"repo_id": "tester/tiny", "data_license": "mit"}})
    publish(run, dry_run=True)
    return run.release_folder / "bundle"


@pytest.fixture
def release(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "release"))


def seal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """The manifest of the files as they are now, with a change, and its right digest: what anybody can do."""
    plain = json.loads((folder / MANIFEST).read_bytes())
    plain["files"] = [file.model_dump() for file in list_files(folder)]
    change(plain)
    (folder / MANIFEST).write_text(Manifest.model_validate(plain).sealed().spelled(), encoding="utf-8")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """A JSON file with a change."""
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def failed(folder: Path) -> dict[str, str]:
    """What fails, with its evidence, looked at in this process."""
    return {item.what: item.evidence for item in check_release(str(folder), apart=False) if item.state == "failed"}


def of_manifest(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set one value, by its keys."""

    def change(plain: dict[str, Any]) -> None:
        *keys, last = [int(key) if key.lstrip("-").isdigit() else key for key in path.split(".")]
        node: Any = plain
        for key in keys:
            node = node[key]
        node[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "what", "told"),
    [
        ("results.-1.win_rate", 99.0, "records", "results[2].win_rate is 99.0, and the records say 60.0"),
        ("results.0.score", "AlpacaEval 2.0", "records", "results[0].score is 'AlpacaEval 2.0'"),
        ("results.1.reliable", True, "records", "results[1].reliable is True"),
        ("base.hub_id", "mistralai/Mistral-7B-v0.1", "records", "base.hub_id is 'mistralai/Mistral-7B-v0.1'"),
        ("trained.sha256", "0" * 64, "records", "trained.sha256 is '0000"),
        ("chain.0.source", ["evil/data"], "records", "chain[0].source[0] is 'evil/data'"),
        ("chain.1.parent_sha256", "f" * 64, "records", "chain[1].parent_sha256 is 'ffff"),
        ("environment.hardware", "8 x H100", "records", "environment.hardware is '8 x H100'"),
        ("finished", "1999-01-01T00:00:00+00:00", "records", "finished is '1999"),
        ("name", "famous", "records", "name is 'famous', and the records say 'tiny'"),
        ("repo_id", "famous/model", "records", "repo_id is 'famous/model'"),
        ("weights.sha256", "a" * 64, "weights", "describes other weights than those that it lists"),
        ("weights.parameters", 7_000_000_000, "weights", "says 21 tensors with 7,000,000,000 values"),
        ("weights.source_sha256", "b" * 64, "records", "the weights were not made from the last iteration's model"),
        ("results", [], "records", "is no record that release.json names"),
        ("chain", [], "records", "names no iteration"),
        ("made_by", "acme 1.0", "made by", "'acme 1.0' is no version of kto-release"),
    ],
)
def test_release_json_is_believed_nothing(release: Path, path: str, value: object, what: str, told: str) -> None:
    """Each of its statements is that of a record, or of the files."""
    seal(release, of_manifest(path, value))
    assert told in failed(release)[what]


def _record(path: str, value: object) -> Change:
    return lambda folder: edit(folder / "records" / "iteration-2.json", of_manifest(path, value))


def _facts(path: str, value: object) -> Change:
    return lambda folder: edit(folder / "records" / "card.json", of_manifest(path, value))


def _checklist(folder: Path) -> None:
    edit(folder / "checklist.json", lambda plain: [check.update(state="passed") for check in plain["checks"]])


def _no_conversations(folder: Path) -> None:
    edit(folder / "template_test.json", lambda plain: plain.update(conversations=[]))


def _all_refused(folder: Path) -> None:
    edit(folder / "template_test.json", lambda plain: [one.update(ids=None) for one in plain["conversations"]])


def _weights_that_are_none(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2**63 - 1).to_bytes(8, "little") + b"{}")


def _remote_code(folder: Path) -> None:
    edit(folder / "config.json", of_manifest("auto_map", {"AutoModelForCausalLM": "evil/repo--modeling.Evil"}))


def _other_rope(folder: Path) -> None:
    edit(folder / "config.json", of_manifest("rope_theta", 7.0))


def _deep(name: str) -> Change:
    return lambda folder: (folder / name).write_text('{"x":' + "[" * 100_000 + "]" * 100_000 + "}") and None


@pytest.mark.parametrize(
    ("change", "what", "told"),
    [
        (_record("parent.sha256", "0" * 64), "records", "iteration 2 did not start from the model of iteration 1"),
        (_record("iteration", 7), "records", "the iterations are not 1 to their number"),
        (_facts("base.sha256", "0" * 64), "records", "records/card.json: base.sha256 is '000"),
        (
            _facts("prompt.text", "Say yes"),
            "records",
            "records/card.json: prompt is not what recipe, records and model",
        ),
        (_facts("summary", "The best"), "records", "records/card.json: summary is not what recipe"),
        (_facts("pictures", ["pictures/other.png"]), "records", "records/card.json: there is no pictures/other.png"),
        (_facts("license.id", "nonsense-1.0"), "README.md", "'nonsense-1.0' is no licence id of the Hub"),
        (_checklist, "checks", "checklist.json says that"),
        (_no_conversations, "chat template", "template_test.json lacks"),
        (_all_refused, "chat template", "no conversation that the template renders"),
        (_weights_that_are_none, "weights", "model.safetensors is no whole safetensors file"),
        (_remote_code, "weights", "config.json asks for code of its own (auto_map)"),
        (_other_rope, "checks", "rope_theta is 7.0, and the newer key says 10000.0"),
        (_deep("records/card.json"), "records", "can't be read"),
        (_deep("tokenizer_config.json"), "chat template", ""),
    ],
)
def test_files_that_contradict_each_other(release: Path, change: Change, what: str, told: str) -> None:
    """A maker who changes one file, and seals the manifest again."""
    change(release)
    seal(release)
    assert told in failed(release)[what]


@pytest.mark.parametrize(
    "name",
    [
        "adapter_config.json",
        "adapter_model.safetensors",
        "model-0evil-of-0.safetensors",
        "\u0441onfig.json",
        "readme.md",
        "records/extra.json",
        "tokenizer/config.json",
        "params.json",
        "consolidated.safetensors",
    ],
)
def test_a_listed_file_that_no_release_has(release: Path, name: str) -> None:
    """Adapters, names that look like others, weights and configurations beside the release's own."""
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_text("{}")
    seal(release)
    assert {name, "records"} & failed(release).keys()


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")


def _link_within(folder: Path) -> None:
    shutil.move(folder / "LICENSE" if (folder / "LICENSE").exists() else folder / "README.md", folder / "card.md")
    (folder / "README.md").symlink_to("card.md")


def _folder_link(folder: Path) -> None:
    (folder / "modules").symlink_to("/etc")


@pytest.mark.parametrize(
    ("change", "name"), [(_fifo, "pipe.png"), (_link_within, "README.md"), (_folder_link, "modules")]
)
def test_what_is_no_plain_file(release: Path, change: Change, name: str) -> None:
    """Pipes and links, whatever they are called and wherever they lead; a link in the place of release.json too."""
    change(release)
    assert name in failed(release)


def test_release_json_itself_is_a_plain_file(release: Path) -> None:
    """A pipe is not waited for, a device without end not read."""
    (release / MANIFEST).unlink()
    os.mkfifo(release / MANIFEST)
    assert failed(release) == {MANIFEST: "release.json is no file"}
    (release / MANIFEST).unlink()
    (release / MANIFEST).symlink_to("/dev/zero")
    assert failed(release) == {MANIFEST: "a link to another place, which is not opened"}


def test_what_people_put_beside_a_release_is_named(release: Path) -> None:
    """A GGUF file and a banner are no failure, and not said to be right; what a reader would load is one."""
    (release / "tiny.Q8_0.gguf").write_bytes(b"GGUF")
    (release / "banner.png").write_bytes(b"png")
    checked = check_release(str(release), apart=False)
    assert [item for item in checked if item.state == "failed"] == []
    assert [item[1:] for item in checked if item.what == "beside it"] == [
        ("not measured", "no part of the release, and not looked at: banner.png, tiny.Q8_0.gguf")
    ]
    (release / "pytorch_model.bin").write_bytes(b"pickle")
    assert failed(release) == {"pytorch_model.bin": "not part of the release"}


def newer(folder: Path) -> None:
    """The manifest as a version to come may write it."""
    plain = json.loads((folder / MANIFEST).read_bytes())
    plain |= {"format": "kto-release/2", "made_by": "kto-release 99.0", "mood": "good"}
    del plain["digest"]
    text = json.dumps({**plain, "digest": sha256_of(plain)}, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def test_a_release_of_a_newer_version(release: Path) -> None:
    """It is said to be so; files, weights and template are checked, and what is wrong with them is found."""
    newer(release)
    checked = {item.what: item for item in check_release(str(release), apart=False)}
    assert [item for item in checked.values() if item.state == "failed"] == []
    assert checked["made by"].evidence.startswith("kto-release 99.0, newer than this")
    assert checked["chat template"].state == checked["weights"].state == checked["files"].state == "passed"
    (release / "README.md").write_text("another")
    assert "README.md" in failed(release)
    (release / MANIFEST).write_text((release / MANIFEST).read_text().replace("good", "bad"))
    with pytest.raises(ReleaseError, match=r"release\.json was changed after it was made"):
        read_any(release / MANIFEST)


def test_another_versions_card_is_compared_all_the_same(release: Path) -> None:
    """A forger who names a newer version does not get away with a card of his own."""
    (release / "README.md").write_text("---\nlicense: mit\n---\nWin rate 99%\n")
    seal(release, of_manifest("made_by", "kto-release 9.9.9"))
    assert "says what the records do not" in failed(release)["README.md"]


def test_a_tokenizer_that_takes_all_memory_ends_only_the_child(release: Path) -> None:
    """The child process has limits; the message says which thing broke them."""
    bomb = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    edit(
        release / "tokenizer.json",
        lambda plain: plain.update(normalizer={"type": "Sequence", "normalizers": [bomb] * 6}),
    )
    seal(release)
    found = {item.what: item.evidence for item in check_release(str(release)) if item.state == "failed"}
    assert found == {
        "chat template": "breaks the process that reads it: it takes more than 4 GiB of memory",
    }
