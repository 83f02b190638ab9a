"""The engines: what they sample, that company changes nothing, and that they agree with plain transformers."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kto_release.engines import Engines, Model, Request, Sampling, choose
from kto_release.engines.transformers import TransformersEngine, sample
from kto_release.errors import EngineError
from kto_release.recipe import EngineSection

GREEDY = Sampling(0.0, 1.0, None, 12, (2,))
WARM = Sampling(1.0, 0.9, None, 12, (2,))
PROMPTS = [[1, 70, 71, 72], [1, 90], [1, 100, 101, 102, 103, 104, 105], [1, 80, 81]]


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    return TransformersEngine(Model(tiny_model, "float32"), longest=64)


def texts(engine: TransformersEngine, requests: list[Request], sampling: Sampling) -> list[tuple[list[int], str]]:
    found = dict(engine.generate(requests, sampling))
    return [(found[index].ids, found[index].finish) for index in range(len(requests))]


def reference_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_greedy_is_the_likeliest_token_each_time(engine: TransformersEngine, tiny_model: Path) -> None:
    """In a padded batch with a cache, as one sequence at a time without either."""
    model = reference_model(tiny_model)
    expected = []
    for ids in PROMPTS:
        found: list[int] = []
        while len(found) < GREEDY.max_tokens:
            with torch.no_grad():
                token = int(model(torch.tensor([ids + found])).logits[0, -1].argmax())
            if token in GREEDY.stop_ids:
                break
            found.append(token)
        expected.append((found, "length" if len(found) == GREEDY.max_tokens else "stop"))
    assert texts(engine, [Request(ids, 0) for ids in PROMPTS], GREEDY) == expected


def test_an_answer_ends_before_the_token_that_stops_it(engine: TransformersEngine) -> None:
    """With each token of an answer as stop token, in a batch whose other rows go on."""
    [whole, *others] = texts(engine, [Request(ids, 0) for ids in PROMPTS], GREEDY)
    stop = whole[0][5]
    cut = whole[0].index(stop)
    found = texts(engine, [Request(ids, 0) for ids in PROMPTS], GREEDY._replace(stop_ids=(2, stop)))
    assert found[0] == (whole[0][:cut], "stop")
    for (ids, _), (longer, _) in zip(found[1:], others, strict=True):
        assert ids == longer[: longer.index(stop) if stop in longer else None]


def test_company_and_order_change_nothing(engine: TransformersEngine) -> None:
    """An answer depends on its prompt and its own seed."""
    requests = [Request(PROMPTS[number % 4], number) for number in range(40)]
    together = texts(engine, requests, WARM)
    assert texts(engine, requests[::-1], WARM) == together[::-1]
    assert [texts(engine, [request], WARM)[0] for request in requests] == together
    assert len({tuple(ids) for ids, _ in together}) > 30  # seeds matter


def test_a_row_that_ends_is_handed_over_at_once(engine: TransformersEngine) -> None:
    """Before the rest of its batch is done."""
    [first] = [ids for ids, _ in texts(engine, [Request(PROMPTS[0], 0)], GREEDY)]
    stops = GREEDY._replace(stop_ids=(first[0],))
    order = [index for index, _ in engine.generate([Request(PROMPTS[1], 0), Request(PROMPTS[0], 0)], stops)]
    assert order[0] == 1


def test_the_context_is_a_limit(engine: TransformersEngine) -> None:
    """An answer is cut where the context ends; a prompt that fills it is an error."""
    [(ids, finish)] = texts(engine, [Request([1] * 60, 0)], GREEDY._replace(stop_ids=()))
    assert (len(ids), finish) == (4, "length")
    with pytest.raises(EngineError, match="a prompt of 64 tokens leaves no room for an answer"):
        texts(engine, [Request([1] * 64, 0)], GREEDY)


def test_next_logprobs_are_the_models(engine: TransformersEngine, tiny_model: Path) -> None:
    """With whatever prompts share: nothing, a beginning, everything, or one the beginning of the other."""
    prompts = [[1, 5, 6, 7], [1, 5, 6, 8, 9], [1, 5, 6, 8, 9], [1, 5], [1, 5, 6, 7, 8], [3]]
    model = reference_model(tiny_model)
    found = dict(engine.next_logprobs(prompts, [10, 399]))
    for index, ids in enumerate(prompts):
        with torch.no_grad():
            logps = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        assert found[index] == pytest.approx([float(logps[10]), float(logps[399])], abs=1e-5)


def frequencies(probabilities: list[float], sampling: Sampling, draws: int = 20_000) -> list[float]:
    logits = torch.tensor([probabilities]).log().repeat(100, 1)
    generators = [torch.Generator().manual_seed(number) for number in range(100)]
    counts = torch.zeros(len(probabilities))
    for _ in range(draws // 100):
        for token in sample(logits, generators, sampling):
            counts[token] += 1
    return [float(count) / draws for count in counts]


P = [0.1, 0.4, 0.05, 0.3, 0.15]
DRAWN = {
    "all": (WARM._replace(top_p=1.0), P),
    # 0.4 + 0.3 = 0.7 < 0.75, so 0.15 is needed, too
    "top-p": (WARM._replace(top_p=0.75), [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
    "top-k": (WARM._replace(top_p=1.0, top_k=2), [0, 4 / 7, 0, 3 / 7, 0]),
    # of the three likeliest 0.4/0.85 = 0.47 is below 0.5, and with the second 0.82 is above
    "top-k, then top-p": (WARM._replace(top_p=0.5, top_k=3), [0, 4 / 7, 0, 3 / 7, 0]),
    # squared: 0.01, 0.16, 0.0025, 0.09, 0.0225 of 0.285
    "temperature": (WARM._replace(top_p=1.0, temperature=0.5), [x * x / 0.285 for x in P]),
}


@pytest.mark.parametrize(("sampling", "expected"), DRAWN.values(), ids=DRAWN)
def test_tokens_are_drawn_as_they_should_be(sampling: Sampling, expected: list[float]) -> None:
    """Frequencies over 20,000 draws, within four standard errors; what is cut off is never drawn."""
    for found, p in zip(frequencies(P, sampling), expected, strict=True):
        assert abs(found - p) <= 4 * math.sqrt(p * (1 - p) / 20_000)


def test_a_flat_distribution_over_a_large_vocabulary_keeps_its_tail() -> None:
    """3,000 equal tokens, of which the first 1,024 looked at are far from enough for top_p."""
    drawn = {
        token
        for seed in range(400)
        for token in sample(torch.zeros(1, 3000), [torch.Generator().manual_seed(seed)], WARM._replace(top_p=0.99))
    }
    assert len(drawn) > 300


def test_weights_are_rounded_before_they_are_used(tiny_model: Path, tmp_path: Path) -> None:
    """A float32 model evaluated as bfloat16 answers as its rounded copy does, not as itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "exact")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "rounded")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "exact")

    def logprobs(folder: str, dtype: str) -> list[float]:
        engine = TransformersEngine(Model(tmp_path / folder, dtype), longest=64)
        return dict(engine.next_logprobs([[1, 70, 71]], list(range(400))))[0]

    assert logprobs("exact", "bfloat16") == logprobs("rounded", "bfloat16")
    assert logprobs("exact", "bfloat16") != logprobs("exact", "float32")


@pytest.mark.slow
def test_one_engine_at_a_time_and_none_loaded_twice(tiny_model: Path, tmp_path: Path) -> None:
    """The same model with enough room is the engine at hand; anything else takes its place."""
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    pool = Engines(EngineSection(kind="transformers"), tmp_path / "log")
    first = pool.get(Model(tiny_model, "float32"), 100)
    assert pool.get(Model(tiny_model, "float32"), 60) is first
    longer = pool.get(Model(tiny_model, "float32"), 200)
    assert longer is not first
    assert longer.longest == 200
    assert pool.get(Model(other, "float32"), 200) is not longer
    assert pool.get(Model(other, "float32"), 10**6).longest == 2048  # the model's own context
    pool.close()


def test_a_folder_that_no_engine_can_load(tiny_model: Path, tmp_path: Path) -> None:
    """One clear error."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(EngineError, match="transformers can't load 'broken': Error while deserializing header"):
        TransformersEngine(Model(broken, "float32"), longest=10)


def test_vllm_is_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message with the command that installs it."""
    from importlib import util

    monkeypatch.setattr(util, "find_spec", lambda _: None)
    with pytest.raises(EngineError) as caught:
        choose(EngineSection(kind="vllm"))
    assert str(caught.value) == (
        "eval.engine.kind is 'vllm', and vLLM is not installed\n"
        "  to do: pip install 'kto-release[vllm]', or take engine.kind: auto"
    )
    assert choose(EngineSection()) == "transformers"
