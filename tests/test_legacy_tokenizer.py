"""The seed's kind of tokenizer, Mistral's legacy SentencePiece one, gives the same ids at every stage of a run."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub
from feedback_files import pair, write_recipe
from huggingface_hub import snapshot_download
from real_tokenizers import make_legacy_model
from transformers import AutoTokenizer

from kto_release.errors import ModelError
from kto_release.evaluate import evaluate
from kto_release.evaluate.candidates import find_candidate
from kto_release.recipe_file import load_recipe
from kto_release.release import publish
from kto_release.run import Run
from kto_release.templates import load_template, render, set_template
from kto_release.train import train
from kto_release.train.tokens import Tokens

pytestmark = pytest.mark.slow

QUESTIONS = [{"instruction": f"Question {number}?", "output": "Yes.", "generator": "us"} for number in range(2)]


@pytest.fixture(scope="module", params=["llama", "mistral"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One iteration trained with tulu_v2, answers of it, and its bundle: nothing is judged."""
    folder = tmp_path_factory.mktemp(request.param)
    base = make_legacy_model(folder / request.param, like=request.param)
    (folder / "questions.json").write_text(json.dumps(QUESTIONS))
    recipe = write_recipe(
        folder,
        base,
        **{
            "model.template": "tulu_v2",
            "data.partitions": ["one"],
            "train.probe_prompts": 0,
            "eval.prompts": "questions.json",
            "eval.generation": {"max_tokens": 4},
            "eval.engine": {"kind": "transformers"},
            "release.repo_id": "tester/small",
            "release.license": "apache-2.0",
            "release.data_license": "cc0-1.0",
            "release.dtype": "float32",
        },
    )
    run = Run.open(load_recipe(recipe), folder / "runs")
    train(run)
    assert evaluate(run) is None
    publish(run, dry_run=True)
    return run


def conversation(number: int) -> list[dict[str, str]]:
    """What row `number` of the first partition asks, and its desirable answer."""
    row = pair(number)
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["chosen"]}]


def ids_of(tokenizer: Any) -> list[list[int]]:
    """Ids of the first conversations, prompt and whole, by the one place that makes them."""
    return [
        ids
        for number in range(8)
        for ids in (
            render(tokenizer, conversation(number)[:1], prompt=True),
            render(tokenizer, conversation(number), prompt=False),
        )
    ]


def test_every_stage_has_the_ids_of_the_base_models_tokenizer(run: Run) -> None:
    """Training's tokens on disk, the saved iteration, what evaluation asks with, and the bundle as people load it."""
    base = AutoTokenizer.from_pretrained(run.recipe.model.base)
    set_template(base, load_template("tulu_v2", base))
    expected = ids_of(base)
    assert expected[0][:2] == [1, 523]  # BOS and "▁<": behind a special token a legacy tokenizer puts a space

    tokens = Tokens(run.iteration(1) / "tokens")
    trained = []
    for number in range(8):
        prompt, completion = tokens.prompt(number).tolist(), tokens.completion(2 * number).tolist()
        trained += [prompt, prompt + completion]
    whole = [ids[: len(ids) - ids[::-1].index(2)] for ids in expected[1::2]]  # an answer ends with its EOS
    assert trained[::2] == expected[::2]
    assert trained[1::2] == whole

    assert ids_of(AutoTokenizer.from_pretrained(run.iteration(1) / "model")) == expected
    assert ids_of(find_candidate(run, None).tokenizer) == expected
    assert ids_of(find_candidate(run, "initial").tokenizer) == expected
    assert ids_of(AutoTokenizer.from_pretrained(run.release_folder / "bundle")) == expected


def test_what_is_downloaded_from_the_hub_has_them_too(run: Run, own_hub: FakeHub, tmp_path: Path) -> None:
    """As a reader has it: published, downloaded, and loaded by nothing but transformers."""
    publish(run)
    folder = snapshot_download("tester/small", local_dir=tmp_path / "down", endpoint=own_hub.url)
    base = AutoTokenizer.from_pretrained(run.recipe.model.base)
    set_template(base, load_template("tulu_v2", base))
    assert ids_of(AutoTokenizer.from_pretrained(folder)) == ids_of(base)


def test_an_iteration_whose_tokenizer_lost_its_kind_is_not_evaluated(run: Run) -> None:
    """As transformers' own saving leaves Llama's: other prompts would be answered than were trained on."""
    if run.recipe.model.base.endswith("mistral"):
        pytest.skip("a tokenizer.json says by itself what kind it is")
    path = run.iteration(1) / "model" / "tokenizer_config.json"
    whole = path.read_text(encoding="utf-8")
    plain = json.loads(whole)
    del plain["legacy"]
    path.write_text(json.dumps(plain), encoding="utf-8")
    try:
        with pytest.raises(ModelError, match="does not keep its contract with this tokenizer"):
            find_candidate(run, None)
    finally:
        path.write_text(whole, encoding="utf-8")
