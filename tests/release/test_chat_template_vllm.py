"""vLLM's roads to a prompt give the ids that a release records: offline chat, and the OpenAI-compatible server."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from real_tokenizers import make_mistral_tokenizer

from kto_release.release.chat_template import write_template
from kto_release.templates import load_template, save_tokenizer, set_template

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
BARE = "<|user|>\nWhat is the capital of France?\n<|assistant|>\n"
"""The first sample conversation as the seed card tells people to write it."""


def make_release(base: Path, folder: Path) -> dict[str, Any]:
    """A released folder with the tokenizer of `base`, tulu_v2 and a tiny random model; its template_test.json."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base)
    set_template(tokenizer, load_template("tulu_v2", tokenizer))
    save_tokenizer(tokenizer, folder)
    write_template(folder, tokenizer, load_template("base", tokenizer), [2])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    test: dict[str, Any] = json.loads((folder / "template_test.json").read_text())
    return test


@pytest.mark.slow
def test_vllm_gives_the_recorded_ids(tmp_path: Path, smollm2: Path) -> None:
    """LLM.chat and the server's chat, text and tokenize routes give template_test.json's ids, with both tokenizers."""
    releases = {
        str(tmp_path / name): make_release(base, tmp_path / name)
        for name, base in {
            "mistral": make_mistral_tokenizer(tmp_path / "base", legacy=True),
            "mistral-new": make_mistral_tokenizer(tmp_path / "new", legacy=False),
            "smollm2": smollm2,
        }.items()
    }
    recorded = {
        folder: [one["ids"] for one in test["conversations"] if one["add_generation_prompt"]]
        for folder, test in releases.items()
    }
    engine = str(tmp_path / "mistral")
    prompts = [one["messages"] for one in releases[engine]["conversations"] if one["add_generation_prompt"]]
    answer = ask_vllm({"engine": engine, "servers": list(releases), "prompts": prompts, "texts": [BARE]}, tmp_path)
    assert answer["chat"] == recorded[engine]
    for folder, roads in answer["servers"].items():
        assert roads["chat completions"] == roads["tokenize messages"] == recorded[folder]
        # SmolLM2's tokenizer adds no BOS to a bare text; Mistral's does, and then the ids are the recorded ones.
        expected = recorded[folder][0] if "mistral" in folder else recorded[folder][0][1:]
        assert roads["completions"] == roads["tokenize text"] == [expected]


def ask_vllm(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    script = Path(__file__).parents[1] / "support" / "vllm_roads.py"
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    result = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **settings},
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer
