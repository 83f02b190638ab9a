"""A tokenizer that is saved and loaded again gives the same ids."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from kto_release.errors import ModelError
from kto_release.templates import load_template, render, save_tokenizer, set_template
from kto_release.templates.samples import SAMPLES
from kto_release.templates.saving import check_reload


@pytest.mark.parametrize("name", ["tulu_v2", "mistral"])
def test_a_saved_tokenizer_gives_the_same_ids(name: str, tokenizer: Any, tmp_path: Path) -> None:
    """Ids and template survive saving and loading, with each kind of tokenizer, Mistral's legacy one included."""
    template = load_template(name, tokenizer)
    set_template(tokenizer, template)
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert load_template("base", loaded)._replace(name=name) == template
    for sample in SAMPLES:
        assert render(loaded, sample.whole, prompt=False) == render(tokenizer, sample.whole, prompt=False)
        assert loaded(sample.answer)["input_ids"] == tokenizer(sample.answer)["input_ids"]


def test_a_saved_tokenizer_that_reads_differently_is_an_error(mistral_folders: dict[str, Path], tmp_path: Path) -> None:
    """What plain save_pretrained does to Mistral's legacy tokenizer is found, with the ids."""
    tokenizer = AutoTokenizer.from_pretrained(mistral_folders["mistral"])
    tokenizer.save_pretrained(tmp_path)
    assert "legacy" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    with pytest.raises(ModelError, match=r"the tokenizer gives other ids after saving: from position 2: \[1, 1, "):
        check_reload(tokenizer, tmp_path)


def test_saving_proves_that_the_ids_stay(mistral_folders: dict[str, Path], tmp_path: Path) -> None:
    """Where the tokenizer no longer says that it is a legacy one, saving it is an error, not another tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(mistral_folders["mistral"])
    tokenizer.legacy = None
    with pytest.raises(ModelError, match="the tokenizer gives other ids after saving"):
        save_tokenizer(tokenizer, tmp_path)


def test_a_lost_template_is_an_error(tiny: Any, tmp_path: Path) -> None:
    """A folder whose tokenizer has another template than the one in hand is refused."""
    save_tokenizer(tiny, tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ModelError, match="has another chat template"):
        check_reload(tiny, tmp_path)
