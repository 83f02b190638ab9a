"""Tokenizers that the template tests share: loaded once, and given back their own template after each test."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_tokenizers import make_mistral_tokenizer
from transformers import AutoTokenizer


@pytest.fixture(scope="session")
def mistral_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mistral")
    return {
        "mistral": make_mistral_tokenizer(root / "legacy", legacy=True),
        "mistral-new": make_mistral_tokenizer(root / "new", legacy=False),
    }


@functools.cache
def _load(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def _lend(folder: Path) -> Iterator[Any]:
    tokenizer = _load(folder)
    own = tokenizer.chat_template
    yield tokenizer
    tokenizer.chat_template = own


@pytest.fixture
def tiny(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(params=["tiny", "smollm2", "mistral", "mistral-new"])
def tokenizer(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each kind in turn: no BOS of its own; BOS that is ChatML's marker; SentencePiece, two ways of spaces."""
    if request.param in ("tiny", "smollm2"):
        yield from _lend(request.getfixturevalue({"tiny": "tiny_model"}.get(request.param, request.param)))
    else:
        yield from _lend(request.getfixturevalue("mistral_folders")[request.param])


@pytest.fixture(params=["mistral", "mistral-new"])
def mistral(request: pytest.FixtureRequest, mistral_folders: dict[str, Path]) -> Iterator[Any]:
    yield from _lend(mistral_folders[request.param])
