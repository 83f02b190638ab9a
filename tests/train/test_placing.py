"""Weights that lie in the host's memory, or in bf16, give the numbers of the model on the device."""

import numpy as np
import pytest
import torch

from kto_release.recipe import LoraSection, ModelSection
from kto_release.train.device import autocast
from kto_release.train.logprobs import branch_logprobs
from kto_release.train.model import load_model, with_adapters
from kto_release.train.placing import device_of, halve, place, stream, weight_bytes
from kto_release.train.proof import prove
from kto_release.train.tree import Branch, Tree, make_packs

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_model):
    loaded = load_model(tiny_model, ModelSection(base=str(tiny_model), template="base")).eval()
    place(loaded, CPU)
    return loaded


def trees():
    ids = np.random.default_rng(0).integers(5, 200, size=(8, 12), dtype=np.int32)
    return [Tree(row[:6], [Branch(row[6:], 2 * n), Branch(row[4:9], 2 * n + 1)]) for n, row in enumerate(ids)]


@torch.no_grad()
def logps(model, precision):
    (pack,) = make_packs(trees(), 1000)
    with autocast(precision, CPU):
        return branch_logprobs(model, pack.to(device_of(model)))


def test_bf16_keeps_what_autocast_would_make(model):
    """The same log-probabilities to the last bit, and less memory. Fails if a norm or an embedding is rounded too."""
    before, bytes_before = logps(model, "bf16"), weight_bytes(model)
    halve(model)
    assert torch.equal(logps(model, "bf16"), before)
    linear = sum(m.weight.numel() for m in model.modules() if type(m) is torch.nn.Linear)
    tied = model.get_output_embeddings().weight.numel() if model.config.tie_word_embeddings else 0
    assert weight_bytes(model) == bytes_before - 2 * (linear - tied)


def test_weights_that_visit_the_device_layer_by_layer(model):
    """Proved, computed, then halved and computed again: the numbers of the model that lies on its device."""
    fp32, bf16 = logps(model, "fp32"), logps(model, "bf16")
    stream(model, CPU)
    assert next(model.parameters()).device.type == "meta"
    assert prove(model, trees()).reason is None
    assert torch.equal(logps(model, "fp32"), fp32)
    halve(model)
    assert next(model.parameters()).device == CPU
    assert torch.equal(logps(model, "bf16"), bf16)


def test_a_frozen_base_in_bf16_trains_adapters_as_one_in_fp32(tiny_model):
    """Log-probabilities and the adapters' gradients are the same to the last bit."""
    results = []
    for halved in (False, True):
        base = load_model(tiny_model, ModelSection(base=str(tiny_model), template="base"))
        if halved:
            halve(base)
        torch.manual_seed(0)
        adapted = with_adapters(base, LoraSection(rank=4, dropout=0.0))
        with torch.no_grad():
            for name, value in adapted.named_parameters():
                if "lora_B" in name:
                    value.normal_(std=0.1)
        (pack,) = make_packs(trees(), 1000)
        with autocast("bf16", CPU):
            found = branch_logprobs(adapted, pack)
        found.sum().backward()
        results.append([found, *(value.grad for value in adapted.parameters() if value.requires_grad)])
    assert len(results[0]) > 1
    assert all(torch.equal(left, right) for left, right in zip(*results, strict=True))
