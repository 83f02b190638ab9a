"""Weights that lie in the host's memory, or in bf16, give the numbers of the model on the device."""

import numpy as np
import pytest
import torch

from kto_release.recipe import ModelSection
from kto_release.train.device import autocast
from kto_release.train.logprobs import branch_logprobs
from kto_release.train.model import load_model
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
    halve(model, CPU)
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
    halve(model, CPU)
    assert next(model.parameters()).device == CPU
    assert torch.equal(logps(model, "bf16"), bf16)
