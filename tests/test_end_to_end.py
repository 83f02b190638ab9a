"""The whole road from the command line: train, eval, publish --dry-run, verify, on a tiny real model."""

import json
import os
import subprocess

import pytest
from feedback_files import write_recipe

pytestmark = pytest.mark.slow

INSTRUCTIONS = [
    {
        "dataset": "small",
        "instruction": f"Question {number}: what is the capital?",
        "output": "Paris.",
        "generator": "us",
    }
    for number in range(4)
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, request):
    """Run the four commands in one folder; returns the folder and what each printed."""
    import sys
    from pathlib import Path

    cli = Path(sys.executable).parent / "kto-release"
    if not cli.exists():
        pytest.skip("kto-release is not installed as a command beside this Python")
    folder = tmp_path_factory.mktemp("road")
    (folder / "instructions.json").write_text(json.dumps(INSTRUCTIONS))
    write_recipe(
        folder,
        tiny_model,
        **{
            "eval.prompts": "instructions.json",
            "eval.reference": "initial",
            "eval.generation": {"max_tokens": 8},
            "eval.engine": {"kind": "transformers"},
            "eval.judge": {"kind": "local", "model": "initial", "verdict": "logprobs"},
            "release.repo_id": "somebody/small",
            "release.license": "apache-2.0",
            "release.data_license": "cc0-1.0",
            "release.dtype": "float32",
        },
    )
    printed = {}
    for name, arguments in {
        "train": ["train", "recipe.yaml"],
        "eval": ["eval", "recipe.yaml"],
        "publish": ["publish", "recipe.yaml", "--dry-run"],
        "verify": ["verify", "runs/small/release/bundle"],
    }.items():
        result = subprocess.run(
            [cli, *arguments], cwd=folder, env=os.environ, capture_output=True, text=True, check=False, timeout=500
        )
        assert result.returncode == 0, (name, result.stdout[-3000:], result.stderr[-3000:])
        printed[name] = result.stdout + result.stderr
    return folder, printed


def test_every_stage_leaves_its_record(finished):
    """Records, judgements in alpaca_eval's two formats, pictures and the bundle are where the documentation says."""
    folder, _ = finished
    run = folder / "runs" / "small"
    assert {path.name for path in run.iterdir()} >= {
        "recipe.yaml",
        "iteration-1",
        "iteration-2",
        "curves.png",
        "eval",
        "release",
    }
    (results,) = run.glob("eval/iteration-2/*/*/results.json")
    answers = json.loads((results.parent.parent / "model_outputs.json").read_text())
    assert [row["instruction"] for row in answers] == [row["instruction"] for row in INSTRUCTIONS]
    assert INSTRUCTIONS[0]["instruction"] in (results.parent / "report.html").read_text(encoding="utf-8")
    annotations = json.loads((results.parent / "annotations.json").read_text())
    assert len(annotations) == 4
    assert all(1 <= row["preference"] <= 2 for row in annotations)
    bundle = {path.name for path in (run / "release" / "bundle").iterdir()}
    assert bundle >= {
        "README.md",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "release.json",
        "checklist.json",
    }


def test_the_score_says_how_much_it_is_worth(finished):
    """A tiny judge on four instructions: named in the score, and not to be relied on, with the reasons."""
    folder, printed = finished
    (path,) = (folder / "runs" / "small").glob("eval/iteration-2/*/*/results.json")
    results = json.loads(path.read_text())
    assert results["judge"]["model"] in results["score"] or results["judge"]["name"] in results["score"]
    assert results["n_total"] == 4
    assert results["length_controlled_winrate"] is None
    assert results["reliable"] is False
    assert any("answer letters" in reason for reason in results["unreliable_because"])
    assert "unreliable" in printed["eval"]


def test_the_published_model_is_the_trained_one(finished):
    """What the bundle holds, transformers loads, with the weights of the last iteration and the trained template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = finished
    run = folder / "runs" / "small"
    trained = AutoModelForCausalLM.from_pretrained(run / "iteration-2" / "model", dtype=torch.float32)
    published = AutoModelForCausalLM.from_pretrained(run / "release" / "bundle", dtype="auto")
    assert published.dtype == torch.float32
    for mine, theirs in zip(trained.parameters(), published.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    messages = [{"role": "user", "content": "Hi"}]
    ids = [
        AutoTokenizer.from_pretrained(run / place).apply_chat_template(messages, add_generation_prompt=True)[
            "input_ids"
        ]
        for place in ("iteration-2/model", "release/bundle")
    ]
    assert ids[0] == ids[1]


def test_publish_shows_what_would_be_sent_and_sends_nothing(finished):
    """The dry run names the repository and every file; nothing listens at the Hub's address here."""
    folder, printed = finished
    assert "somebody/small" in printed["publish"]
    assert "Nothing was sent." in printed["publish"]
    for path in (folder / "runs" / "small" / "release" / "bundle").iterdir():
        if path.is_file():
            assert path.name in printed["publish"]


def test_no_path_of_the_machine_is_in_the_bundle(finished):
    """Records, card and recipe of a bundle name no folder of the machine that made it."""
    folder, _ = finished
    for path in (folder / "runs" / "small" / "release" / "bundle").rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            assert str(folder).encode() not in path.read_bytes(), path.name
