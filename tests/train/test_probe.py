"""The probe's numbers, each made again from the models that a run left, one sequence at a time."""

import numpy as np
import pytest
import torch
from feedback_files import write_recipe
from tiny import make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from kto_release.recipe_file import load_recipe
from kto_release.run import Run
from kto_release.train import train
from kto_release.train.held_out import preference_accuracy
from kto_release.train.probe import repetition
from kto_release.train.tokens import Tokens

pytestmark = pytest.mark.slow
PROMPTS, MOST = 4, 12
CONTROLS = [chr(256 + byte) for byte in range(32) if byte not in (9, 10)]
"""How a byte-level vocabulary spells control characters: 30 tokens that no text here holds.

With them as further ends some answers end within twelve tokens, and some do not.
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two iterations of a model whose own generation settings would sample from another distribution."""
    folder = tmp_path_factory.mktemp("probed")
    model = make_tiny_model(folder / "model", dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(model)
    ends = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(CONTROLS)]
    GenerationConfig(
        do_sample=True, temperature=0.5, top_p=0.9, repetition_penalty=3.0, min_p=0.05, eos_token_id=ends
    ).save_pretrained(model)
    sizes = {"train.probe_prompts": PROMPTS, "train.probe_tokens": MOST}
    made = Run.open(load_recipe(write_recipe(folder, model, **sizes)), folder / "runs")
    train(made)
    return made


def ends_of(run):
    return GenerationConfig.from_pretrained(run.recipe.model.base).eos_token_id


@torch.no_grad()
def sampled(run, number):
    """(prompt, answer with its end) of the first held-out prompts: drawn from softmax(logits), without a cache."""
    model = AutoModelForCausalLM.from_pretrained(run.iteration(number) / "model", dtype=torch.float32)
    held = Tokens(run.path / "held-out" / "tokens")
    prompts = [torch.from_numpy(held.prompt(row).astype(np.int64)) for row in range(PROMPTS)]
    answers, ends = [[] for _ in prompts], ends_of(run)
    torch.manual_seed(run.recipe.train.seed)
    for _ in range(MOST):
        rows = [
            model(input_ids=torch.cat([prompt, torch.tensor(answer, dtype=torch.long)])[None]).logits[0, -1].softmax(-1)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        for answer, token in zip(answers, torch.multinomial(torch.stack(rows), 1).squeeze(1).tolist(), strict=True):
            answer.append(token)
        if all(set(answer) & set(ends) for answer in answers):
            break
    cut = [next((place + 1 for place, token in enumerate(answer) if token in ends), MOST) for answer in answers]
    return [(prompt, answer[:end]) for prompt, answer, end in zip(prompts, answers, cut, strict=True)]


@torch.no_grad()
def logps(folder, answers):
    """log pi of each answer, by the model's own logits."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = []
    for prompt, answer in answers:
        ids = torch.cat([prompt, torch.tensor(answer)])
        rows = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        found.append(float(rows[len(prompt) - 1 : -1].gather(1, ids[len(prompt) :, None]).sum()))
    return np.array(found)


@pytest.mark.parametrize("number", [1, 2])
def test_numbers_are_those_of_answers_drawn_at_temperature_one(run, number):
    """KL to the initial and to the previous model, mean length, and the share that ended, from one's own draws.

    Whatever the model's generation_config asks for: its temperature, top_p, min_p and penalty are not pi's.
    """
    probe = run.iteration_records()[number - 1].probe
    folders = [run.recipe.model.base, *(run.iteration(n) / "model" for n in (1, 2))]
    answers = sampled(run, number)
    ended = [answer[-1] in ends_of(run) for _, answer in answers]
    own, previous, initial = (logps(folders[n], answers) for n in (number, number - 1, 0))
    assert probe.answers == PROMPTS
    assert probe.kl_initial == pytest.approx(np.mean(own - initial), abs=1e-4)
    assert probe.kl_previous == pytest.approx(np.mean(own - previous), abs=1e-4)
    assert probe.mean_length == np.mean([len(answer) for _, answer in answers])
    assert probe.ended == np.mean(ended)
    assert probe.repetition == np.mean([repetition(answer) for _, answer in answers])
    assert 0 < np.mean(ended) < 1


def test_the_second_iteration_is_measured_against_the_first_too(run):
    """After iteration 1 both KLs are one number; after iteration 2 they are two."""
    first, second = (record.probe for record in run.iteration_records())
    assert first.kl_initial == first.kl_previous
    assert abs(second.kl_initial - second.kl_previous) > 1e-3


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([], 0.0),
        ([1, 2, 3], 0.0),
        ([1, 2, 3, 4, 5, 6], 0.0),
        ([1, 1, 1, 1, 1, 1], 2 / 3),  # three 4-grams, all alike
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),  # the last of five was there before
    ],
)
def test_repetition_is_the_share_of_4_grams_that_occurred_before(ids, share):
    assert repetition(ids) == pytest.approx(share)


def test_a_tie_is_not_right(run):
    """Pairs of equal reward count as wrong; swapped rewards give the complement."""
    held = Tokens(run.path / "held-out" / "tokens")
    desirable = held.desirable_F.astype(float)
    assert preference_accuracy(held, np.zeros(len(held))).value == 0
    assert preference_accuracy(held, desirable).value == 1
    assert preference_accuracy(held, -desirable).value == 0
    one = np.where(held.prompt_F == 0, desirable, 0.0)
    assert preference_accuracy(held, one).value == 1 / 4
