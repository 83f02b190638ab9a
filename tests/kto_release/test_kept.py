"""What is kept of a training: a slope, by hand, with its interval; and log-probabilities by transformers alone."""

import math
from pathlib import Path

import pytest
import torch

from kto_release.errors import ModelError
from kto_release.kept import CheckRow, kept, logprobs, noise


def test_the_slope_is_of_log_ratios_through_the_origin() -> None:
    """Trained ratios 1 and -2 (from initial -10 and -20), published ratios 1 and -1: (1 * 1 + 2 * 1) / (1 + 4) = 0.6."""
    trained, initial = {"a": -9.0, "b": -22.0}, {"a": -10.0, "b": -20.0}
    found = kept(trained, {"a": -9.0, "b": -21.0}, initial)
    assert found is not None
    assert (found.value, found.n, found.reliable, found.note) == (pytest.approx(0.6), 2, False, "2 prompts")
    assert kept(trained, trained, initial).value == 1.0
    assert kept(trained, initial, initial).value == 0.0
    assert kept(initial, trained, initial) is None  # nothing was learned: there is nothing to keep
    assert kept({}, {}, {}) is None


def test_rows_of_one_prompt_are_resampled_together() -> None:
    """Twelve prompts of two equal rows: the interval is that of twelve rows, and wider than of twenty-four."""
    ratios = [1.0, 0.2, 1.4, 0.8, 0.1, 1.9, 1.1, 0.4, 0.9, 1.5, 0.3, 1.2]
    one = {f"{n}": 1.0 for n in range(12)}
    both = {f"{n}{side}": 1.0 for n in range(12) for side in "xy"}
    zero = dict.fromkeys([*one, *both], 0.0)
    single = kept(one, {f"{n}": ratio for n, ratio in enumerate(ratios)}, zero)
    twice = {f"{n}{side}": ratios[n] for n in range(12) for side in "xy"}
    clustered = kept(both, twice, zero, {row: row[:-1] for row in both})
    apart = kept(both, twice, zero)
    assert (clustered.value, clustered.n, clustered.reliable) == (pytest.approx(sum(ratios) / 12), 24, True)
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.05)
    assert apart.high - apart.low < 0.85 * (clustered.high - clustered.low)


def test_the_noise_is_of_single_answers() -> None:
    """Off by 3 and by -4 nats: the root of (9 + 16) / 2."""
    assert noise({"a": 0.0, "b": 0.0}, {"a": 3.0, "b": -4.0}) == pytest.approx(math.sqrt(12.5))


def test_log_probabilities_are_the_models(tmp_path: Path, tiny_model: Path) -> None:
    """With an output layer of zeros every token has the same probability: 3 tokens of 1/V each."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.lm_head.weight.data.zero_()
    model.save_pretrained(tmp_path / "even")
    row = CheckRow(digest="a", prompt=[5, 6], completion=[7, 8, 9])
    found = logprobs(tmp_path / "even", [row])
    assert found == {"a": pytest.approx(-3 * math.log(model.config.vocab_size), rel=1e-6)}


def test_a_folder_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    """Without a model there is no number."""
    with pytest.raises(ModelError, match="transformers can't load the model in"):
        logprobs(tmp_path, [])


def test_each_token_is_predicted_from_those_before_it(tiny_model: Path) -> None:
    """The sum of log-probabilities is that of predicting one token after the other."""
    from transformers import AutoModelForCausalLM

    prompt, completion = [5, 6, 7], [20, 21, 22, 23]
    found = logprobs(tiny_model, [CheckRow(digest="row", prompt=prompt, completion=completion)])
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total = 0.0
    with torch.no_grad():
        for place, token in enumerate(completion):
            logits = model(torch.tensor([prompt + completion[:place]])).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
    assert found["row"] == pytest.approx(total, abs=1e-4)
