"""Packs of random tokens, and a tiny model with heads that flash attention has kernels for."""

import json
import shutil

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kto_release.train.tree import Branch, Tree, lay

SIZES = [
    [(5, [4, 7, 1]), (9, [2]), (1, [1, 1, 3])],
    [(40, [30, 50]), (70, [20, 90, 33]), (30, [1])],
]


def pack_of(sizes, vocabulary=60):
    rng = np.random.default_rng(0)
    slot = iter(range(1000))
    return lay(
        [
            Tree(
                rng.integers(3, vocabulary, prompt).astype(np.int32),
                [Branch(rng.integers(3, vocabulary, size).astype(np.int32), next(slot)) for size in branches],
            )
            for prompt, branches in sizes
        ]
    )


def wide(folder, tiny_model):
    """The tiny model with heads of 16, as flash attention wants multiples of 8."""
    target = folder / "wide"
    if not target.exists():
        shutil.copytree(tiny_model, target)
        config = LlamaConfig(**{**json.loads((target / "config.json").read_text()), "head_dim": 16})
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(target)
    return target
