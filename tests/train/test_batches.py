"""Global batches: order, label balance, siblings and KL partners."""

import numpy as np
import pytest

from kto_release.errors import DataError
from kto_release.train.batches import epoch_batches, partners


def pairs(count):
    return np.repeat(np.arange(count), 2), np.tile([True, False], count)


def random_data(rng):
    """Prompts with 1 to 6 completions of random labels."""
    sizes = rng.integers(1, 7, rng.integers(2, 60))
    prompt_F = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return prompt_F, rng.random(len(prompt_F)) < rng.random()


@pytest.mark.parametrize("seed", range(60))
def test_every_feedback_once_and_no_partner_with_the_own_prompt(seed):
    """For any data and batch size: each epoch holds every feedback once, and no KL partner shares its prompt.

    Fails if `partners` shifts by one less than the largest group, or `_mended` is left out.
    """
    rng = np.random.default_rng(seed)
    prompt_F, desirable_F = random_data(rng)
    batch_size = int(rng.integers(2, 40))
    batches = epoch_batches(prompt_F, desirable_F, batch_size, seed, 0)
    assert sorted(np.concatenate([b.feedback_B for b in batches]).tolist()) == list(range(len(prompt_F)))
    for batch in batches:
        assert (prompt_F[batch.feedback_B] != prompt_F[batch.partner_B]).all()
        assert set(batch.partner_B.tolist()) <= set(batch.feedback_B.tolist())


def test_batches_have_the_size_of_the_recipe():
    """100 pairs in batches of 32: six full ones and the rest of 8."""
    batches = epoch_batches(*pairs(100), 32, 0, 0)
    assert [len(b.feedback_B) for b in batches] == [32, 32, 32, 32, 32, 32, 8]


def test_siblings_stay_together():
    """Both completions of a pair are in one batch, side by side."""
    prompt_F, desirable_F = pairs(50)
    for batch in epoch_batches(prompt_F, desirable_F, 16, 3, 0):
        prompts = prompt_F[batch.feedback_B]
        assert (prompts[::2] == prompts[1::2]).all()


def test_pairs_give_mixed_batches():
    """Pairs sorted by label (all chosen, then all rejected, as an unpaired data set holds them) train half and half."""
    prompt_F = np.tile(np.arange(600), 2)
    desirable_F = np.repeat([True, False], 600)
    assert {int(desirable_F[b.feedback_B].sum()) for b in epoch_batches(prompt_F, desirable_F, 16, 0, 0)} == {8}


def test_single_labels_are_in_the_ratio_of_the_data_in_every_batch():
    """Three to one over the whole is 24 to 8, give or take one, in every batch of 32."""
    rng = np.random.default_rng(0)
    desirable_F = rng.permutation(np.repeat([True, False], [960, 320]))
    liked = [int(desirable_F[b.feedback_B].sum()) for b in epoch_batches(np.arange(1280), desirable_F, 32, 0, 0)]
    assert len(liked) == 40
    assert set(liked) <= {23, 24, 25}


def test_epochs_differ_and_repeat_by_seed():
    """Another epoch or seed gives another order and other partners; the same gives the same."""

    def drawn(seed, epoch):
        return [(b.feedback_B.tolist(), b.partner_B.tolist()) for b in epoch_batches(*pairs(40), 16, seed, epoch)]

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert drawn(1, 0) != drawn(2, 0)


def test_a_last_prompt_alone_is_given_company():
    """Nine prompts in batches of 8 feedback: the ninth is not left alone with no KL partner."""
    batches = epoch_batches(np.arange(9), np.arange(9) % 2 == 0, 8, 0, 0)
    assert sorted(len(b.feedback_B) for b in batches) == [2, 7]


def test_every_completion_is_a_partner_once_where_that_is_possible():
    """Where no prompt holds more than half, partners are a permutation: none is used twice."""
    prompt_B = np.array([0, 0, 0, 1, 1, 2])
    for seed in range(50):
        found_B = partners(prompt_B, np.random.default_rng(seed))
        assert sorted(found_B.tolist()) == list(range(6))
        assert (prompt_B[found_B] != prompt_B).all()


def test_one_prompt_that_holds_most_of_a_batch_draws_from_the_others():
    """Five of six share a prompt: all five have the sixth as partner."""
    prompt_B = np.array([0, 0, 0, 0, 0, 1])
    found_B = partners(prompt_B, np.random.default_rng(0))
    assert found_B[:5].tolist() == [5] * 5
    assert found_B[5] < 5


def test_one_prompt_only_is_an_error():
    """Without another prompt there is no KL partner, and the message says so."""
    with pytest.raises(DataError) as caught:
        epoch_batches(np.zeros(4, dtype=np.int64), np.array([True, False, True, False]), 4, 0, 0)
    assert str(caught.value) == (
        "all 4 rows of feedback share one prompt\n"
        "  expected: at least two prompts: the KL partner of an answer is an answer to another prompt"
    )
