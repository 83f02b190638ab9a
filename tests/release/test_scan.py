"""What must not be in a release is found before it is sent."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kto_release.release.scan import scan

PEM = "-----BEGIN " + "EC PRIVATE KEY-----"


def found(folder: Path, text: str, name: str = "config.json", environment: dict[str, str] | None = None) -> list[str]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [str(finding) for finding in scan(folder, environment or {})]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hf_" + "a1B2" * 9, "a Hugging Face token"),
        ("sk-proj-" + "a1B2" * 8, "an OpenAI or Anthropic key"),
        ("ghp_" + "a1B2" * 9, "a GitHub token"),
        ("AKIA" + "ABCDEFGH12345678", "an AWS key"),
        ("xoxb-" + "1234567890-abc", "a Slack token"),
        ("AIza" + "a" * 35, "a Google key"),
        ("hf_oauth_eyJhbGciOiJFZERTQSJ9" + "abcd" * 5, "a Hugging Face token"),
        ("api_org_" + "a1B2" * 9, "a Hugging Face token"),
        ("glpat-" + "a1B2" * 5, "a GitLab token"),
        ("npm_" + "a1B2" * 9, "an npm token"),
        ("pypi-AgEIcHlwaS5vcmc" + "a1B2" * 5, "a PyPI token"),
        ("gsk_" + "a1B2" * 13, "a Groq key"),
        ("https://h.example/v1?a=1&api_key=0123456789abcdef", "a key in an address"),
        (PEM, "a private key"),
        ("https://me:secret@example.org/x", "a password in an address"),
        ('"path": "/home/bob/model"', "a path of the machine that made it"),
        ("/scratch/gpfs/bob", "a path of the machine that made it"),
        (r"C:\Users\bob\model", "a path of the machine that made it"),
        ("/fsx/alice/model", "a path of the machine that made it"),
        ("/lustre/home/bob", "a path of the machine that made it"),
        ("/content/drive/MyDrive", "a path of the machine that made it"),
        ("/Volumes/Disk/y", "a path of the machine that made it"),
        ("C:/Users/bob", "a path of the machine that made it"),
        ("~/models/x", "a path of the machine that made it"),
    ],
)
def test_is_found_by_file_line_and_kind(tmp_path: Path, text: str, kind: str) -> None:
    """Each secret and path is told by its kind, and never repeated in the finding."""
    assert found(tmp_path, f"first line\n{text}\n") == [f"config.json, line 2: {kind}"]


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/home/model",
        "and/or, either/home/neither",
        "task-specific text with hf_token and sk-1",
        "a path inside the release: records/tmp/x.json",
        "https://github.com/user/repo",
        "https://h.example/v1?monkey=0123456789abcdef&page=12345678",
    ],
)
def test_ordinary_text_is_not(tmp_path: Path, text: str) -> None:
    """Addresses and ordinary words are not taken for secrets or paths."""
    assert found(tmp_path, text) == []


def test_values_of_secret_variables(tmp_path: Path) -> None:
    """Whatever its form, the value of a variable named like a secret is found, in any file."""
    environment = {"MY_API_KEY": "correct horse battery", "EDITOR": "correct horse battery", "SHORT_KEY": "horse"}
    assert found(tmp_path, "correct horse battery", "records/x.json", environment) == [
        "records/x.json, line 1: the value of the environment variable MY_API_KEY"
    ]
    environment = {
        "A_SECRET": "/Zm9vYmFyYmF6Zm9v",
        "B_KEY": "first line of it\nsecond line of it",
        "SSH_KEY": "/etc/passwd",
    }
    assert found(tmp_path, "x /Zm9vYmFyYmF6Zm9v /etc/passwd\nthe second line of it", "x.json", environment) == [
        "x.json, line 1: the value of the environment variable A_SECRET",
        "x.json, line 2: the value of the environment variable B_KEY",
    ]


@pytest.mark.parametrize(
    "name", ["TOKENIZER_NAME", "KEYCLOAK_REALM", "TOKENIZERS_PARALLELISM", "KEYBOARD", "MONKEY_ID"]
)
def test_names_that_only_sound_like_a_secret(tmp_path: Path, name: str) -> None:
    """Their values are ordinary text."""
    assert found(tmp_path, "tokenizer of a model", "x.json", {name: "tokenizer of a model"}) == []


def test_a_vocabulary_may_hold_paths(tmp_path: Path) -> None:
    """Pieces of other people's text in a tokenizer's vocabulary are no paths of this machine; a secret still counts."""
    assert found(tmp_path, json.dumps({"/home/user": 1}), "tokenizer.json") == []
    assert found(tmp_path, "hf_" + "a1B2" * 9, "tokenizer.json") == ["tokenizer.json, line 1: a Hugging Face token"]


def test_metadata_of_weights(tmp_path: Path) -> None:
    """A safetensors file's header holds free text."""
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors", metadata={"from": "/home/bob/run"})
    assert [str(finding) for finding in scan(tmp_path, {})] == [
        "model.safetensors, line 1: a path of the machine that made it"
    ]
