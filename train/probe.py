"""After an iteration: what the model does on feedback and prompts that it never trained on.

The reward here is log pi - log pi_initial, so it means the same after every iteration.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from kto_release.recipe import ModelSection, TrainSection
from kto_release.records import Interval, Probe
from kto_release.train import logps_store
from kto_release.train.arithmetic import autocast, load_model
from kto_release.train.logprobs import branch_logprobs, own_attention, take_road
from kto_release.train.plain import room
from kto_release.train.proof import proof_trees, prove
from kto_release.train.tokens import Tokens
from kto_release.train.tree import FORWARD_ONLY, Branch, Tree, make_packs

NGRAM = 4
CHECK_ROWS = 4


class Scored(NamedTuple):
    """A model, by its folder and its weights' digest."""

    path: Path
    sha256: str


class Answer(NamedTuple):
    """One sampled answer."""

    prompt: NDArray[np.int32]
    ids: NDArray[np.int32]
    """With the end-of-turn token, where it ended by itself."""
    ended: bool


class Prober:
    """Measures models of one run.

    Args:
        held_out: held-out feedback, or None.
        cache: folder for log-probabilities, kept by content.
        model_section, train: of the recipe.
        tokenizer: with the template set.
        precision: bf16 or fp32.
        proof_rows: on which prompt trees are proved right, once for all models that are probed.
    """

    def __init__(
        self,
        held_out: Tokens | None,
        cache: Path,
        model_section: ModelSection,
        train: TrainSection,
        tokenizer: Any,
        precision: str,
        proof_rows: Tokens,
    ) -> None:
        self.held_out, self.cache, self.section, self.train = held_out, cache, model_section, train
        self.tokenizer, self.precision = tokenizer, precision
        self.proof_rows = proof_rows
        self._road: str | None = None
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def probe(self, model: Scored, parent: Scored, initial: Scored, rows: Tokens) -> tuple[Probe, dict[str, float]]:
        """The probe of `model`, which came from `parent`, in a run that began with `initial`; and its `check_logps`."""
        with self._loaded(model) as loaded:
            checks = self._check_logps(loaded, rows)
            own = self._held_out_logps(loaded, model)
            answers = self._answers(loaded)
            answer_logps = self._answer_logps(loaded, answers)
        others: dict[str, tuple[str, NDArray[np.float64], NDArray[np.float64] | None]] = {}
        for name, other in {"previous": parent, "initial": initial}.items():
            same = [known for known in others.values() if known[0] == other.sha256]
            if same:
                others[name] = same[0]
                continue
            with self._loaded(other) as loaded:
                logps = self._held_out_logps(loaded, other) if name == "initial" or other == initial else None
                others[name] = (other.sha256, self._answer_logps(loaded, answers), logps)
        initial_logps = others["initial"][2]
        accuracy = None
        if self.held_out is not None and own is not None and initial_logps is not None:
            accuracy = preference_accuracy(self.held_out, own - initial_logps)
        found = Probe(
            preference_accuracy=accuracy,
            kl_initial=_mean(answer_logps - others["initial"][1]),
            kl_previous=_mean(answer_logps - others["previous"][1]),
            mean_length=_mean(np.array([len(answer.ids) for answer in answers])),
            ended=_mean(np.array([answer.ended for answer in answers])),
            repetition=_mean(np.array([repetition(answer.ids.tolist()) for answer in answers])),
            answers=len(answers),
        )
        return found, checks

    @contextmanager
    def _loaded(self, model: Scored) -> Iterator[Any]:
        loaded = load_model(model.path, self.section).to(self.device).eval()
        if self._road is None:
            most = max(self.train.max_length, len(self.proof_rows.longest()[0]) + self.train.probe_tokens)
            self._road = prove(loaded, proof_trees(self.proof_rows, most, self.train.probe_tokens)).name
        take_road(loaded, self._road)
        try:
            yield loaded
        finally:
            del loaded
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _held_out_logps(self, loaded: Any, model: Scored) -> NDArray[np.float64] | None:
        """log pi of each held-out completion under a model, shape (F,)."""
        held_out = self.held_out
        if held_out is None:
            return None
        keys_K = logps_store.wanted(held_out, [])
        key = logps_store.content_key(held_out, keys_K, model.sha256, self.train.max_length, self.precision)
        stored = logps_store.load(self.cache, key, held_out)
        if stored is None:
            with autocast(self.precision, self.device):
                stored = logps_store.compute(
                    loaded,
                    held_out,
                    keys_K,
                    max_length=self.train.max_length,
                    tokens_per_pack=FORWARD_ONLY * self.train.tokens_per_pack,
                )
            logps_store.store(self.cache, key, stored)
        return stored.of(held_out.prompt_F, np.arange(len(held_out)))

    def _answers(self, loaded: Any) -> list[Answer]:
        """One answer sampled at temperature 1 to each of the first held-out prompts.

        At temperature 1 the mean of log pi - log pi_other over answers estimates the KL divergence without bias.
        """
        if self.held_out is None or not self.train.probe_prompts:
            return []
        count = min(self.train.probe_prompts, self.held_out.facts.prompts)
        prompts = [self.held_out.prompt(number) for number in range(count)]
        width = max(len(prompt) for prompt in prompts)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids = torch.full((count, width), pad)
        mask = torch.zeros((count, width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
            mask[row, width - len(prompt) :] = 1
        generation = loaded.generation_config
        ends = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
        devices = [self.device] if self.device.type == "cuda" else []
        with (
            own_attention(loaded),
            torch.random.fork_rng(devices=devices),
            torch.no_grad(),
            autocast(self.precision, self.device),
        ):
            torch.manual_seed(self.train.seed)
            made = loaded.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                do_sample=True,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                max_new_tokens=self.train.probe_tokens,
                pad_token_id=pad,
                use_cache=True,
            )
        answers = []
        for prompt, row in zip(prompts, made[:, width:].cpu().numpy(), strict=True):
            end = next((place for place, token in enumerate(row.tolist()) if token in ends), None)
            answers.append(
                Answer(prompt, row[: len(row) if end is None else end + 1].astype(np.int32), end is not None)
            )
        return answers

    @torch.no_grad()
    def _answer_logps(self, loaded: Any, answers: list[Answer]) -> NDArray[np.float64]:
        trees = [Tree(answer.prompt, [Branch(answer.ids, slot)]) for slot, answer in enumerate(answers)]
        logps = np.zeros(len(answers))
        with autocast(self.precision, self.device):
            for pack in make_packs(trees, room(loaded, self.train.tokens_per_pack)):
                logps[list(pack.slots)] = branch_logprobs(loaded, pack.to(self.device)).double().cpu().numpy()
        return logps

    def check_logps(self, path: Path, tokens: Tokens) -> dict[str, float]:
        """log pi of the first few feedback of `tokens`, in fp32, by digest: what a reload must give again."""
        with self._loaded(Scored(path, "")) as loaded:
            return self._check_logps(loaded, tokens)

    @torch.no_grad()
    def _check_logps(self, loaded: Any, tokens: Tokens) -> dict[str, float]:
        found = {}
        for number in range(min(CHECK_ROWS, len(tokens))):
            tree = Tree(tokens.prompt(int(tokens.prompt_F[number])), [Branch(tokens.completion(number), 0)])
            (pack,) = make_packs([tree], self.train.tokens_per_pack)
            found[tokens.digest(number)] = float(branch_logprobs(loaded, pack.to(self.device))[0])
        return found


def preference_accuracy(tokens: Tokens, rewards_F: NDArray[np.float64]) -> Interval | None:
    """Share of (desirable, undesirable) pairs of one prompt whose desirable answer has the higher reward.

    With Wilson's 95% interval; None where there is no such pair.
    """
    from scipy.stats import binomtest

    right = pairs = prompts = 0
    for prompt in range(tokens.facts.prompts):
        mine = tokens.prompt_F == prompt
        liked, disliked = rewards_F[mine & tokens.desirable_F], rewards_F[mine & ~tokens.desirable_F]
        right += int((liked[:, None] > disliked[None, :]).sum())
        pairs += len(liked) * len(disliked)
        prompts += bool(len(liked) * len(disliked))
    if not pairs:
        return None
    bounds = binomtest(right, pairs).proportion_ci(method="wilson")
    return Interval(
        value=right / pairs,
        low=float(bounds.low),
        high=float(bounds.high),
        n=pairs,
        method="Wilson score interval over pairs",
        note=None
        if prompts == pairs
        else f"{pairs} pairs of {prompts} prompts: pairs of one prompt are not independent",
    )


def repetition(ids: list[int]) -> float:
    """Share of 4-grams of an answer that occurred before in it; 0 for a shorter one."""
    grams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
