"""A release as other programs read it: old and new keys, vocabularies, sampling, the embedding."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_builder import build_run

from kto_release.recipe import GenerationSection
from kto_release.release import publish
from kto_release.release.readers import (
    beyond_embedding,
    disagreements,
    for_all_readers,
    generation_config,
    tokenizer_for_all_readers,
)


def test_rope_parameters_stand_under_their_old_names_too() -> None:
    """The base of the rotations, a scaling, a share; and the dtype. 4.57 reads the top level, and else 10,000."""
    new = {
        "model_type": "llama",
        "dtype": "bfloat16",
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "partial_rotary_factor": 0.5},
    }
    made = for_all_readers(new, {})
    assert made == {
        **new,
        "torch_dtype": "bfloat16",
        "rope_theta": 5e5,
        "partial_rotary_factor": 0.5,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"model_type": "gpt_neox", "rope_parameters": {"rope_theta": 9.0, "partial_rotary_factor": 0.25}},
            {"rotary_emb_base": 9.0, "rotary_pct": 0.25},
        ),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                },
            },
            {
                "rope_theta": 1e6,
                "rope_local_base_freq": 1e4,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
        (
            {"text_config": {"model_type": "llama", "rope_parameters": {"rope_theta": 7.0}}},
            {"text_config": {"model_type": "llama", "rope_parameters": {"rope_theta": 7.0}, "rope_theta": 7.0}},
        ),
    ],
)
def test_families_with_other_names(config: dict[str, Any], expected: dict[str, Any]) -> None:
    """What a family called it, and kinds of layers with rotations of their own."""
    assert for_all_readers(config, {}) == {**config, **expected}


def test_what_the_base_stated_is_kept_and_never_against_the_model() -> None:
    """A key that the new version took in comes back; what the trained model says of itself holds; its dtype too."""
    base = {"rope_theta": 1.0, "old_key": 3, "torch_dtype": "float16", "_name_or_path": "/home/x", "use_cache": True}
    made = for_all_readers({"dtype": "float32", "use_cache": False, "rope_parameters": {"rope_theta": 2.0}}, base)
    assert made == {
        "dtype": "float32",
        "torch_dtype": "float32",
        "use_cache": True,
        "rope_parameters": {"rope_theta": 2.0},
        "rope_theta": 2.0,
        "old_key": 3,
    }


def test_a_tokenizer_class_that_every_version_knows() -> None:
    """The base's own class where it is an old one; else the one that takes tokenizer.json as it stands."""
    new = {"tokenizer_class": "TokenizersBackend", "is_local": True, "backend": "tokenizers", "vocab_file": "/home/v"}
    assert tokenizer_for_all_readers(new, {"tokenizer_class": "LlamaTokenizer"}) == {
        "tokenizer_class": "LlamaTokenizer"
    }
    assert tokenizer_for_all_readers(new, new) == {"tokenizer_class": "PreTrainedTokenizerFast"}
    own = {"tokenizer_class": "GPT2Tokenizer", "extra_special_tokens": ["<a>"]}
    assert tokenizer_for_all_readers(own, {}) == {
        "tokenizer_class": "GPT2Tokenizer",
        "additional_special_tokens": ["<a>"],
    }


def test_generation_as_evaluated() -> None:
    """Nothing of the base but its tokens; "all tokens" is written, as readers take 50 where nothing is."""
    base = {"eos_token_id": [2, 3], "repetition_penalty": 1.3, "suppress_tokens": [5], "top_k": 7, "temperature": 9}
    sampled = GenerationSection(temperature=0.5, top_p=0.9)
    assert generation_config(base, sampled) == {
        "eos_token_id": [2, 3],
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 0,
    }
    greedy = generation_config(base, GenerationSection(temperature=0))
    assert greedy == {"eos_token_id": [2, 3], "do_sample": False}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A release of a base that has vocabularies for other programs, and settings of its own."""
    folder = tmp_path_factory.mktemp("readers")
    base = Path(shutil.copytree(tiny_model, folder / "base"))
    (base / "tokenizer.model").write_bytes(b"/home/user of a vocabulary")
    (base / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "repetition_penalty": 1.3})
    )
    run = build_run(folder, base, sections={"release": {"repo_id": "tester/tiny", "data_license": "mit"}})
    publish(run, dry_run=True)
    return run.release_folder / "bundle"


def test_a_release_says_the_same_to_all(bundle: Path) -> None:
    """Of a bundle as publish makes it: the class, the vocabulary, the sampling of the evaluation; nothing disagrees."""
    assert [*disagreements(bundle)] == []
    assert beyond_embedding(bundle) is None
    assert (bundle / "tokenizer.model").read_bytes() == b"/home/user of a vocabulary"
    config = json.loads((bundle / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["torch_dtype"] == config["dtype"] == "bfloat16"
    assert json.loads((bundle / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    generation = json.loads((bundle / "generation_config.json").read_text())
    assert {key: generation.get(key) for key in ("temperature", "top_p", "top_k", "repetition_penalty")} == {
        "temperature": 0.7,
        "top_p": 0.95,
        "top_k": 0,
        "repetition_penalty": None,
    }


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("config.json", {"rope_theta": 1.0}, "config.json: rope_theta is 1.0, and the newer key says 10000.0"),
        ("config.json", {"torch_dtype": None}, "config.json: torch_dtype is None, and the newer key says 'bfloat16'"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "TokenizersBackend"},
            "tokenizer_config.json: 'TokenizersBackend' is no tokenizer of transformers 4",
        ),
    ],
)
def test_what_readers_would_read_differently(
    bundle: Path, tmp_path: Path, file: str, change: dict[str, Any], told: str
) -> None:
    """Each is one line."""
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    plain = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**plain, **change}))
    assert [*disagreements(copy)] == [told]


def test_a_token_without_a_row(bundle: Path, tmp_path: Path) -> None:
    """A token that was added to the tokenizer and not to the embedding; a special token's number beyond it."""
    from transformers import AutoTokenizer

    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    tokenizer = AutoTokenizer.from_pretrained(copy)
    rows = len(tokenizer)
    generation = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps({**generation, "pad_token_id": rows}))
    assert (
        beyond_embedding(copy) == f"generation_config.json: pad_token_id {rows} is beyond the embedding ({rows} rows)"
    )
    tokenizer.add_special_tokens({"pad_token": "<more>"})
    tokenizer.save_pretrained(copy)
    assert beyond_embedding(copy) == f"token {rows}, '<more>', is beyond the embedding ({rows} rows)"
