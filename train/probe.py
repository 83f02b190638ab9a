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

from kto_release.kept import MEASURED, CheckRow, CheckRows
from kto_release.records import ModelFacts, Probe
from kto_release.train import logps_store
from kto_release.train.device import autocast, process_state
from kto_release.train.distributed import loads_on_main_only
from kto_release.train.held_out import preference_accuracy, separation
from kto_release.train.inputs import Inputs
from kto_release.train.logprobs import branch_logprobs, own_attention, take_road
from kto_release.train.model import load_model
from kto_release.train.placing import halve, place
from kto_release.train.plain import room
from kto_release.train.proof import proof_trees, prove
from kto_release.train.tokens import Tokens
from kto_release.train.tree import FORWARD_ONLY, Branch, Tree, make_packs
from kto_release.train.waiting import from_all, from_main

NGRAM = 4
CHECK_ROWS = 4
"""Rows that a model is checked on when it is loaded again."""


class Answer(NamedTuple):
    """One sampled answer."""

    prompt: NDArray[np.int32]
    ids: NDArray[np.int32]
    """With the end-of-turn token, where it ended by itself."""
    ended: bool


class Probed(NamedTuple):
    """What is known of a model after its iteration."""

    probe: Probe
    logprobs: dict[str, float]
    """log pi of up to `kept.MEASURED` rows, in fp32, by the row's digest."""
    initial_logprobs: dict[str, float]
    """The same by the initial model."""


class Prober:
    """Measures models of one run.

    Args:
        inputs: the run's; without held-out feedback there is less to measure.
        precision: bf16 or fp32.
    """

    def __init__(self, inputs: Inputs, precision: str) -> None:
        self.inputs, self.held_out, self.precision = inputs, inputs.held_out, precision
        self.section, self.train = inputs.run.recipe.model, inputs.run.recipe.train
        # Prompt trees are proved right once, on the longest rows, for all models that are probed: they have one shape.
        self._rows = [*inputs.tokens, *([inputs.held_out] if inputs.held_out is not None else [])]
        self._road: str | None = None
        self._share = False
        self._state = process_state()
        self.main = bool(self._state.is_main_process)
        self.device = self._state.device if torch.cuda.is_available() else torch.device("cpu")

    def probe(self, model: ModelFacts, parent: ModelFacts, rows: Tokens) -> Probed:
        """The probe of `model`, which came from `parent`; `rows` are those that log-probabilities are recorded of.

        Every process of `shares_work` calls it at once: held-out feedback is shared between them, and the rest, which
        takes seconds, is the main process's, whose result it is.
        """
        initial = self.inputs.initial
        self._share = self.shares_work
        before: dict[str, float] = {}
        with self._loaded(model) as loaded:
            checks = self._check_logps(loaded, rows, MEASURED)
            self._halve(loaded)
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
                is_initial = other.sha256 == initial.sha256
                before = self._check_logps(loaded, rows, MEASURED) if is_initial else before
                self._halve(loaded)
                logps = self._held_out_logps(loaded, other) if is_initial else None
                others[name] = (other.sha256, self._answer_logps(loaded, answers), logps)
        initial_logps = others["initial"][2]
        accuracy = separated = None
        if self.held_out is not None and own is not None and initial_logps is not None:
            accuracy = preference_accuracy(self.held_out, own - initial_logps)
            separated = separation(self.held_out, own - initial_logps)
        found = Probe(
            preference_accuracy=accuracy,
            separation=separated,
            kl_initial=_mean(answer_logps - others["initial"][1]),
            kl_previous=_mean(answer_logps - others["previous"][1]),
            mean_length=_mean(np.array([len(answer.ids) for answer in answers])),
            ended=_mean(np.array([answer.ended for answer in answers])),
            repetition=_mean(np.array([repetition(answer.ids.tolist()) for answer in answers])),
            answers=len(answers),
        )
        return Probed(found, checks, before)

    @property
    def shares_work(self) -> bool:
        """Whether every process probes: not where the launch spares host memory for one copy of the weights."""
        return self._state.num_processes > 1 and not loads_on_main_only()

    @contextmanager
    def _loaded(self, model: ModelFacts) -> Iterator[Any]:
        with self._loaded_from(
            self.inputs.base.path if model.path is None else self.inputs.run.path / model.path
        ) as it:
            yield it

    @contextmanager
    def _loaded_from(self, path: Path) -> Iterator[Any]:
        loaded = load_model(path, self.section).eval()
        place(loaded, self.device)
        if self._road is None and self.main:
            rows = max(self._rows, key=lambda tokens: sum(map(len, tokens.longest())))
            most = max(self.train.max_length, len(rows.longest()[0]) + self.train.probe_tokens)
            self._road = prove(loaded, proof_trees(rows, most, self.train.probe_tokens)).name
        if self._share:
            self._road = from_main(self._state, self._road)
        if self._road is None:
            raise RuntimeError("the main process sent no road")
        take_road(loaded, self._road)
        try:
            yield loaded
        finally:
            del loaded
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _halve(self, loaded: Any) -> None:
        if self.precision == "bf16":
            halve(loaded)
            place(loaded, self.device)

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(from_all(self._state, values.cpu())).sum(0)

    def _held_out_logps(self, loaded: Any, model: ModelFacts) -> NDArray[np.float64] | None:
        """log pi of each held-out completion under a model, shape (F,)."""
        held_out = self.held_out
        if held_out is None:
            return None
        keys_K = logps_store.wanted(held_out, [])
        key = logps_store.content_key(held_out, keys_K, model.sha256, self.train.max_length, self.precision)
        folder = self.inputs.run.path / "held-out" / "logps"
        stored = logps_store.load(folder, key, held_out) if self.main else None
        if self._share:
            stored = from_main(self._state, stored)
        if stored is None:
            with autocast(self.precision, self.device):
                stored = logps_store.compute(
                    loaded,
                    held_out,
                    keys_K,
                    max_length=self.train.max_length,
                    tokens_per_pack=FORWARD_ONLY * self.train.tokens_per_pack,
                    rank=self._state.process_index if self._share else 0,
                    ranks=self._state.num_processes if self._share else 1,
                    reduce=self._sum if self._share else None,
                )
            if self.main:
                logps_store.store(folder, key, stored)
        return logps_store.Reference(*stored).of(held_out.prompt_F, np.arange(len(held_out)))

    def _answers(self, loaded: Any) -> list[Answer]:
        """One answer sampled at temperature 1 to each of the first held-out prompts.

        At temperature 1 the mean of log pi - log pi_other over answers estimates the KL divergence without bias.
        """
        if self.held_out is None or not self.train.probe_prompts or not self.main:
            return []
        count = min(self.train.probe_prompts, self.held_out.facts.prompts)
        prompts = [self.held_out.prompt(number) for number in range(count)]
        width = max(len(prompt) for prompt in prompts)
        pad = self.inputs.tokenizer.pad_token_id if self.inputs.tokenizer.pad_token_id is not None else 0
        ids = torch.full((count, width), pad)
        mask = torch.zeros((count, width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
            mask[row, width - len(prompt) :] = 1
        ends = _sample_as_it_is(loaded)
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
        with self._loaded_from(path) as loaded:
            return self._check_logps(loaded, tokens, CHECK_ROWS)

    @torch.no_grad()
    def _check_logps(self, loaded: Any, tokens: Tokens, count: int) -> dict[str, float]:
        found = {}
        for number in range(min(count, len(tokens)) if self.main else 0):
            tree = Tree(tokens.prompt(int(tokens.prompt_F[number])), [Branch(tokens.completion(number), 0)])
            (pack,) = make_packs([tree], self.train.tokens_per_pack)
            found[tokens.digest(number)] = float(branch_logprobs(loaded, pack.to(self.device))[0])
        return found


def check_rows(tokens: Tokens) -> CheckRows:
    """The rows that log-probabilities are recorded of, for whoever measures another form of the model on them."""
    return CheckRows(
        rows=[
            CheckRow(
                digest=tokens.digest(number),
                prompt=tokens.prompt(int(tokens.prompt_F[number])).tolist(),
                completion=tokens.completion(number).tolist(),
            )
            for number in range(min(MEASURED, len(tokens)))
        ]
    )


def repetition(ids: list[int]) -> float:
    """Share of 4-grams of an answer that occurred before in it; 0 for a shorter one."""
    grams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _sample_as_it_is(loaded: Any) -> list[int]:
    """Let `generate` draw from the model's own distribution; returns the tokens that end an answer.

    What a model's generation_config asks for (a temperature, a penalty of repetition, a smallest probability) would
    give another distribution, whose answers say nothing of the KL divergence; `generate` takes it wherever a call is
    silent.
    """
    from transformers import GenerationConfig  # slow to import, and most of this room needs none

    own = loaded.generation_config.eos_token_id
    loaded.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_p=1.0, top_k=0, eos_token_id=own)
    return own if isinstance(own, list) else [own]


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
