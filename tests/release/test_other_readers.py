"""A release as transformers 4.57 and llama.cpp's converter read it: the same ids, the same model."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from other_readers import converter, transformers_4
from run_builder import build_run

from kto_release.release import publish

READ = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
test = json.load(open(folder + "/template_test.json"))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
asked = [one for one in test["conversations"] if one["ids"] is not None]
made = [
    tokenizer.apply_chat_template(
        one["messages"], add_generation_prompt=one["add_generation_prompt"], tokenize=True, return_dict=False
    )
    for one in asked
]
with torch.no_grad():
    logps = model(torch.tensor([asked[0]["ids"] * 8])).logits[0].log_softmax(-1)
print(json.dumps({
    "version": transformers.__version__, "same": made == [one["ids"] for one in asked], "count": len(asked),
    "logp": float(logps.max(-1).values.sum()), "theta": getattr(model.config, "rope_theta", None),
}))
"""

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose base is as transformers 4 wrote Mistral's: rope_theta at the top, a SentencePiece model alone."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    mistral_common = pytest.importorskip("mistral_common")
    folder = tmp_path_factory.mktemp("other-readers")
    base = folder / "base"
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=32000, **sizes, num_key_value_heads=2, initializer_range=0.2, sliding_window=None)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 1e6}
    MistralForCausalLM(config).to(torch.bfloat16).save_pretrained(base)
    plain = json.loads((base / "config.json").read_text())
    del plain["rope_parameters"], plain["dtype"]
    plain |= {"rope_theta": 1e6, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}
    (base / "config.json").write_text(json.dumps(plain))
    (base / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    data = Path(str(mistral_common.__file__)).parent / "data"
    shutil.copyfile(data / "tokenizer.model.v1", base / "tokenizer.model")
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": True, "add_bos_token": True}
    settings = {**tokens, "tokenizer_class": "LlamaTokenizer", "chat_template": TEMPLATE}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    release = {"repo_id": "tester/tiny", "license": "apache-2.0", "data_license": "cc0-1.0", "dtype": "float32"}
    run = build_run(folder, base, evaluated=False, iterations=1, sections={"release": release})
    publish(run, dry_run=True)
    return run.release_folder / "bundle"


def read(bundle: Path, before: Path | None = None) -> dict[str, object]:
    """What a program prints that reads the release, with the packages in `before` first."""
    environment = {**os.environ, "PYTHONPATH": str(before) if before else "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", READ, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    plain: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return plain


@pytest.mark.slow
def test_transformers_4_reads_the_same_model(bundle: Path) -> None:
    """Its tokenizer gives the recorded ids of every conversation, and its model the same log-probabilities.

    Mutations that this finds: rope_theta only under its new name (10,000 instead of 1,000,000), a tokenizer class that
    4.57 does not know, a list of extra special tokens.
    """
    old, new = read(bundle, transformers_4(os.environ["REAL_CACHE"])), read(bundle)
    assert str(old["version"]).startswith("4.57")
    assert old["same"] is True
    assert new["same"] is True
    assert old["count"] == new["count"] != 0
    assert old["theta"] == 1e6
    assert math.isclose(float(str(old["logp"])), float(str(new["logp"])), rel_tol=1e-5)


@pytest.mark.slow
def test_llama_cpps_converter_reads_the_same_vocabulary(bundle: Path, tmp_path: Path) -> None:
    """The GGUF file has every piece with the score that the SentencePiece model gives it, the template, and the base of
    the rotations. Without tokenizer.model all scores are -1000, and llama.cpp gives other ids.
    """
    gguf = pytest.importorskip("gguf")
    sentencepiece = pytest.importorskip("sentencepiece")
    made = tmp_path / "model.gguf"
    command = [
        sys.executable,
        str(converter(os.environ["REAL_CACHE"])),
        str(bundle),
        "--outfile",
        str(made),
        "--outtype",
        "f32",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    fields = gguf.GGUFReader(made).fields
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(bundle / "tokenizer.model"))
    scores = fields["tokenizer.ggml.scores"].contents()
    assert len(scores) == pieces.vocab_size()
    assert scores[300:] == pytest.approx([pieces.get_score(number) for number in range(300, len(scores))])
    assert fields["tokenizer.chat_template"].contents() == (bundle / "chat_template.jinja").read_text()
    assert fields["llama.rope.freq_base"].contents() == 1e6
