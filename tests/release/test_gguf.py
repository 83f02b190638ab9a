"""GGUF files of a release: the same function, measured, and an error for whatever would be another one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from run_builder import build_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from kto_release.errors import ReleaseError
from kto_release.kept import CheckRow, logprobs
from kto_release.release import publish
from kto_release.release.gguf.convert import architecture_of, convert, words_of
from kto_release.release.gguf.measure import Recorded, measure

ROWS = [CheckRow(digest=str(n), prompt=[1, 20 + n, 30], completion=[40 + n, 50, 2]) for n in range(12)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model with the top-level rope_theta that every release's configuration has."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("gguf") / "model"))
    config = json.loads((folder / "config.json").read_bytes())
    config["rope_theta"] = (config.get("rope_parameters") or config)["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_file_in_fp32_is_the_same_function(plain: Path, tmp_path: Path) -> None:
    """Every tensor has its name, its order and its values: log-probabilities are those of the weights, to rounding."""
    convert(plain, tmp_path / "m.gguf", "f32", name="m")
    ids = torch.tensor([[1, 20, 30, 40, 50, 2]])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)(ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)(ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    own = AutoTokenizer.from_pretrained(plain)
    assert read("What is 12 plus 3?\n")["input_ids"] == own("What is 12 plus 3?\n")["input_ids"]
    assert read.chat_template == own.chat_template


@pytest.mark.parametrize(("kind", "least"), [("f16", 0.999), ("q8_0", 0.9)])
def test_what_a_file_keeps_is_measured(kind: str, least: float, plain: Path, tmp_path: Path) -> None:
    """Of a training that moved the log-probabilities by a nat each, either keeps nearly all; the KL is small."""
    file = tmp_path / "m.gguf"
    convert(plain, file, kind, name="m")
    trained = logprobs(plain, ROWS)
    initial = {row: value - 1.0 for row, value in trained.items()}
    found = measure(plain, file, kind, 10**6, ROWS, Recorded(trained=trained, initial=initial))
    assert found.kept is not None
    assert found.kept.value > least
    assert found.kl is not None
    assert 0 <= found.kl < 0.01
    assert (found.tokens, found.kept.n) == (36, 12)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"model_type": "gpt2"}, "release.gguf: models of the type 'gpt2' are not converted"),
        (
            {"model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 32768},
            "release.gguf: llama.cpp does not keep to this model's sliding window of 4096 tokens",
        ),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_an_error(config: dict[str, Any], problem: str) -> None:
    """No file is better than one that answers as another model would."""
    with pytest.raises(ReleaseError) as caught:
        architecture_of(config)
    assert caught.value.problem == problem


def test_how_texts_are_cut_into_words_is_known_by_its_steps() -> None:
    """A tokenizer that cuts otherwise has no name, rather than a wrong one."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    assert words_of({"pre_tokenizer": level}) == "gpt-2"
    assert words_of({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]}}) == "smollm"
    for other in ({**level, "add_prefix_space": True}, {"type": "Whitespace"}):
        with pytest.raises(ReleaseError, match=r"llama\.cpp has no name that is known here"):
            words_of({"pre_tokenizer": other})


@pytest.mark.slow
def test_a_release_makes_its_companion_beside_the_bundle(tmp_path: Path, tiny_model: Path) -> None:
    """One file for each kind, with a card that names the release as its base, and the release's card names it."""
    wanted = {"gguf": ["q8_0"], "data_license": "mit"}
    run = build_run(tmp_path, tiny_model, iterations=1, evaluated=False, sections={"release": wanted})
    publish(run, dry_run=True)
    folder = run.release_folder / "gguf"
    assert sorted(path.name for path in folder.iterdir() if path.name != "LICENSE") == [
        "README.md",
        "gguf.json",
        "params",
        "template_test.json",
        "tiny-kto-Q8_0.gguf",
    ]
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert (front["base_model"], front["base_model_relation"]) == ("tester/tiny-kto", "quantized")
    assert json.loads((folder / "params").read_text())["stop"] == ["</s>"]
    assert "tester/tiny-kto-GGUF" in (run.release_folder / "bundle" / "README.md").read_text()
