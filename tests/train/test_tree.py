"""Prompt trees and packs against one sequence at a time, in fp64."""

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from kto_release.train.logprobs import branch_logprobs, teach_trees
from kto_release.train.tree import Branch, Tree, lay, make_packs, share

VOCABULARY = 61


def make_model():
    """GPT-NeoX: rotary positions, and norms that compute in the weights' own precision (Llama's go through fp32)."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return GPTNeoXForCausalLM(config).double()


def make_trees(seed=0, sizes=(2, 1, 3, 4)):
    """Trees with prompts of 1 to 20 tokens and branches of 1 to 15, so also of a single token."""
    rng = np.random.default_rng(seed)
    slot = iter(range(1000))

    def ids(most):
        return rng.integers(0, VOCABULARY, rng.integers(1, most)).astype(np.int32)

    return [Tree(ids(21), [Branch(ids(16), next(slot)) for _ in range(size)]) for size in sizes]


def one_at_a_time(model, trees):
    """log pi of each branch from the model's own logits, a sequence a forward pass."""
    found = {}
    for tree in trees:
        for branch in tree.branches:
            ids = torch.from_numpy(np.concatenate([tree.prompt, branch.ids]).astype(np.int64))
            logps = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            targets = ids[len(tree.prompt) :]
            found[branch.slot] = logps[len(tree.prompt) - 1 : -1].gather(1, targets[:, None]).sum()
    return torch.stack([found[slot] for slot in sorted(found)])


def in_packs(model, packs, weights):
    """log pi of each branch in packs, with the gradient of its weighted sum accumulated pack by pack."""
    found = torch.zeros(len(weights), dtype=torch.float64)
    for pack in packs:
        logps_N = branch_logprobs(model, pack)
        (logps_N * weights[list(pack.slots)]).sum().backward()
        found[list(pack.slots)] = logps_N.detach()
    return found


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("tokens_per_pack", [8, 20, 40, 1000])
def test_packs_give_the_log_probabilities_and_gradients_of_single_sequences(tokens_per_pack):
    """Equal to 1e-9 in fp64, whether a tree is split over packs or all trees share one.

    Fails if a branch's positions do not go on where its prompt ends, if a branch sees its sibling or not its prompt, or
    if the first token of a branch is predicted from anywhere but the prompt's end.
    """
    trees = make_trees()
    weights = torch.linspace(-1, 2, 10, dtype=torch.float64)
    plain = make_model()
    expected = one_at_a_time(plain, trees)
    (expected * weights).sum().backward()
    model = make_model()
    teach_trees(model)
    actual = in_packs(model, make_packs(trees, tokens_per_pack), weights)
    torch.testing.assert_close(actual, expected.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=0, atol=1e-9)


def test_logits_in_chunks_are_the_logits_at_once(monkeypatch):
    """Chunks of three positions give the values and gradients of one chunk."""
    trees = make_trees(1)
    weights = torch.linspace(-1, 2, 10, dtype=torch.float64)
    results = []
    for chunk in (2**24, 3 * VOCABULARY):
        monkeypatch.setattr("kto_release.train.logprobs.CHUNK_LOGITS", chunk)
        model = make_model()
        teach_trees(model)
        results.append((in_packs(model, make_packs(trees, 1000), weights), gradients(model)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


def test_a_pack_holds_no_padding_and_each_prompt_once():
    """Two trees, by hand: ids end to end without the branches' last tokens, positions per conversation."""
    trees = [
        Tree(
            np.array([7, 8], np.int32), [Branch(np.array([1, 2, 3], np.int32), 0), Branch(np.array([4], np.int32), 1)]
        ),
        Tree(np.array([9], np.int32), [Branch(np.array([5, 6], np.int32), 2)]),
    ]
    pack = lay(trees)
    assert pack.ids_T.tolist() == [7, 8, 1, 2, 9, 5]
    assert pack.positions_T.tolist() == [0, 1, 2, 3, 0, 1]
    assert pack.predictors_C.tolist() == [1, 2, 3, 1, 4, 5]
    assert pack.targets_C.tolist() == [1, 2, 3, 4, 5, 6]
    assert pack.lengths == (3, 1, 2)
    assert pack.slots == (0, 1, 2)
    assert [(s.start, s.prompt_end, s.branches) for s in pack.spans] == [(0, 2, ((2, 4), (4, 4))), (4, 5, ((5, 6),))]


@pytest.mark.parametrize("tokens_per_pack", [8, 30, 64, 500])
def test_packs_keep_to_their_size(tokens_per_pack):
    """No pack is longer than asked, but for a single completion that is longer with its prompt."""
    for pack in make_packs(make_trees(2, (3,) * 20), tokens_per_pack):
        assert len(pack.ids_T) <= tokens_per_pack or len(pack.slots) == 1


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_share_every_branch_once_in_equally_many_packs(ranks):
    """Every slot is computed on exactly one rank, and no rank waits for another in a collective."""
    trees = make_trees(3, (2, 2, 1))
    shares = share(trees, ranks, 30)
    assert sorted(slot for packs in shares for pack in packs for slot in pack.slots) == [0, 1, 2, 3, 4]
    assert len({len(packs) for packs in shares}) == 1


def test_a_tree_is_split_where_that_shortens_the_slowest_rank():
    """By hand: a prompt of 2 with two answers of 9 is 18 tokens; as two trees 10 on each of two ranks. One rank computes
    the prompt once. A prompt of 40 with the answers is 56 tokens, and 48 on each rank: less, so split too."""
    for prompt, whole, split in ((2, 18, 10), (40, 56, 48)):
        answers = [Branch(np.arange(9, dtype=np.int32), slot) for slot in (0, 1)]
        tree = Tree(np.arange(prompt, dtype=np.int32), answers)
        (alone,) = share([tree], 1, 1000)
        assert [len(pack.ids_T) for pack in alone] == [whole]
        assert [[len(pack.ids_T) for pack in packs] for packs in share([tree], 2, 1000)] == [[split], [split]]
