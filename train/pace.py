"""How long an iteration takes: one pack is measured on the device that is there, and the iteration's tokens counted."""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from kto_release.recipe import TrainSection
from kto_release.train.attention import calls_with_spans
from kto_release.train.batches import GlobalBatch
from kto_release.train.device import autocast
from kto_release.train.logprobs import branch_logprobs, teach_trees
from kto_release.train.placing import weight_bytes
from kto_release.train.tokens import Tokens, trees
from kto_release.train.tree import FORWARD_ONLY, Pack, make_packs, share

MEASURED_TOKENS = 512
SAMPLED = 20
"""Batches whose tokens are counted, evenly over the iteration."""


class Work(NamedTuple):
    """Tokens of one iteration on its slowest device."""

    trained: float
    """Through forward and backward passes."""
    forward: float
    """Through forward passes alone: KL partners, and the reference's."""


def count_work(tokens: Tokens, batches: list[GlobalBatch], train: TrainSection, devices: int) -> Work:
    """The work of an iteration. What the reference computes is as much as its steps do, without their repetitions."""
    places = np.unique(np.linspace(0, len(batches) - 1, min(SAMPLED, len(batches))).astype(int))
    trained = partners = 0
    for batch in (batches[place] for place in places):
        prompts, own = tokens.prompt_F[batch.feedback_B], batch.feedback_B
        trained += _slowest(tokens, prompts, own, train, train.tokens_per_pack, devices)
        partners += _slowest(tokens, prompts, batch.partner_B, train, FORWARD_ONLY * train.tokens_per_pack, devices)
    scale = len(batches) / len(places)
    reference = trained / train.epochs + partners
    return Work(trained * scale, (partners + reference) * scale)


def _slowest(tokens: Tokens, prompts: Any, completions: Any, train: TrainSection, limit: int, devices: int) -> int:
    grown = trees(tokens, prompts, completions, np.arange(len(completions)), train.max_length)
    return max(sum(len(pack.ids_T) for pack in packs) for packs in share(grown, devices, limit))


class Pace(NamedTuple):
    """Seconds per token on one device."""

    trained: float
    forward: float

    def seconds(self, work: Work) -> float:
        """Of an iteration's steps and reference; start, saving and probe come on top."""
        return self.trained * work.trained + self.forward * work.forward


def measure(
    config: Any, tokens: Tokens, batch: GlobalBatch, precision: str, device: torch.device, *, checkpointing: bool
) -> Pace | None:
    """One pack of a batch's own trees, by a model of `config` with random weights, which take as long as any.

    None where the device has no room for it, or the model computes no trees.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        needed = 2 * weight_bytes(AutoModelForCausalLM.from_config(config))  # weights and gradients
    if needed > _free(device) / 2:
        return None
    with device, torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    teach_trees(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    prompts = tokens.prompt_F[batch.feedback_B]
    grown = trees(tokens, prompts, batch.feedback_B, np.arange(len(prompts)), tokens.facts.longest)
    pack = make_packs(grown, MEASURED_TOKENS)[0].to(device)

    def forward() -> torch.Tensor:
        with autocast(precision, device):
            return branch_logprobs(model, pack)

    def trained() -> torch.Tensor:
        logps = forward()
        logps.sum().backward()
        return logps

    with torch.no_grad(), calls_with_spans() as seen:
        forward()  # what the first pass alone costs
        if not seen:
            return None
        once = _seconds_per_token(forward, pack)
    return Pace(_seconds_per_token(trained, pack), once)


def _seconds_per_token(step: Callable[[], torch.Tensor], pack: Pack) -> float:
    started = time.perf_counter()
    float(step().detach().sum())  # waits for the device
    return (time.perf_counter() - started) / len(pack.ids_T)


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
