"""What a base model says of generation can be saved with the trained one, or is found before the first step."""

import json
import shutil
from pathlib import Path

import pytest

from kto_release.errors import ModelError
from kto_release.models import LocalModel, load_tokenizer
from kto_release.recipe import ModelSection
from kto_release.train.fits import check_generation, check_vocabulary
from kto_release.train.model import load_model


def base_with(tiny_model: Path, folder: Path, content: str) -> Path:
    """A copy of the model with this generation_config.json."""
    copy = Path(shutil.copytree(tiny_model, folder / "base"))
    (copy / "generation_config.json").write_text(content)
    return copy


def test_settings_that_contradict_each_other(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A temperature without sampling: told before training, and of the trained model only the tokens are saved."""
    plain = {"bos_token_id": 1, "eos_token_id": [2, 3], "do_sample": False, "temperature": 0.9}
    base = base_with(tiny_model, tmp_path, json.dumps(plain))
    check_generation(base)
    assert "generation_config.json of 'base' contradicts itself" in " ".join(capsys.readouterr().err.split())
    load_model(base, ModelSection(base=str(base))).save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert {key: value for key, value in saved.items() if key != "transformers_version"} == {
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
    }


def test_settings_that_hold_together_are_left_alone(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sampling with a temperature; and no file at all."""
    check_generation(tiny_model)
    base = base_with(tiny_model, tmp_path, json.dumps({"eos_token_id": 2, "do_sample": True, "temperature": 0.9}))
    check_generation(base)
    assert capsys.readouterr().err == ""
    assert load_model(base, ModelSection(base=str(base))).generation_config.temperature == 0.9


@pytest.mark.parametrize("content", ["[1, 2", "[]"])
def test_a_file_that_is_no_generation_config(tiny_model: Path, tmp_path: Path, content: str) -> None:
    """Text that is no JSON, and a list: one error, before anything is loaded."""
    with pytest.raises(ModelError) as caught:
        check_generation(base_with(tiny_model, tmp_path, content))
    assert caught.value.problem.startswith("generation_config.json of 'base' can't be read: ")


def test_a_token_beyond_the_embedding_is_told(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tokenizer that got a token, and an embedding that did not get its row."""
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    tokenizer = load_tokenizer(LocalModel(base, "base", None, None))
    check_vocabulary(tokenizer, base, trust_remote_code=False)
    assert capsys.readouterr().err == ""
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<more>"})
    check_vocabulary(tokenizer, base, trust_remote_code=False)
    told = " ".join(capsys.readouterr().err.split())
    assert f"the tokenizer of 'base' has '<more>' as token {rows}, beyond the embedding ({rows} rows)" in told
