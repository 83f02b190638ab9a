"""KTOTrainer: transformers.Trainer whose training step is one global batch.

The step, exactly (docs/numerics.md): (1) without gradient, the KL partners of all packs, summed over ranks, give z;
(2) forward and backward pack by pack, gradients synchronised at the last; (3) the optimizer's step. Packing,
accumulation and the number of ranks change none of it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from kto_release import console
from kto_release.errors import RunError
from kto_release.train import checkpoints, varlen
from kto_release.train.batches import GlobalBatch
from kto_release.train.device import check_room_for_training, process_state
from kto_release.train.distributed import keep_sums_exact, save_as
from kto_release.train.iteration import Iteration
from kto_release.train.logprobs import branch_logprobs
from kto_release.train.logps_store import Reference
from kto_release.train.loss import reference_point
from kto_release.train.plain import PLAIN, road, room
from kto_release.train.same_function import first_step_fault, training_mode
from kto_release.train.schedule import make_schedule
from kto_release.train.tokens import trees
from kto_release.train.tree import FORWARD_ONLY, Pack, share
from kto_release.train.varlen_proof import whole_pack_fault
from kto_release.train.waiting import wait

MIN_TOKENS_PER_PACK = 64
# Shape suffixes: B feedback of the global batch, N branches of a pack.


class _Steps(torch.utils.data.Dataset[int]):
    """The numbers of the optimizer steps; the batches themselves are made where they are used."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> int:
        return step


def _only(items: list[int]) -> dict[str, int]:
    return {"step": items[0]}


class KTOTrainer(Trainer):  # type: ignore[misc]  # transformers ships no types
    """One optimizer step per global batch, on any number of ranks.

    Args:
        model: taught by `logprobs.teach_trees`.
        args: as `fit.arguments` makes them: one step per item of the data loader.
        iteration: what is optimized.
        find_reference: gives the reference; called once before the first step, with the model prepared.
    """

    lr_scheduler: Any

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        iteration: Iteration,
        find_reference: Callable[["KTOTrainer"], Reference],
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=_Steps(len(iteration.batches)))
        self.iteration = iteration
        self.find_reference = find_reference
        self.reference: Reference | None = None
        self.tokens_per_pack = iteration.train.tokens_per_pack
        self.step_metrics: dict[str, float] = {}
        self.tokens_computed = 0
        self.saved_at = time.monotonic()

    def create_accelerator_and_postprocess(self) -> None:
        """Accelerate's own, with fp32 sums under every launch."""
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled:
            # Every rank writes its own shards, once: whole state dicts are gathered, and the weights written twice.
            save_as(self.accelerator, "SHARDED_STATE_DICT")
        keep_sums_exact(self.accelerator, "bf16" if self.args.bf16 else "fp32")

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """`make_schedule`'s, so that no step has a learning rate of 0."""
        if self.lr_scheduler is None:
            chosen = self.optimizer if optimizer is None else optimizer
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = make_schedule(self.args.lr_scheduler_type, chosen, warmup, num_training_steps)
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader[int]:
        """The steps in order. Not prepared by accelerate: every rank takes its own share of every batch."""
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=_only)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated."""
        del inputs
        return 0

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Elementwise sum over ranks, of fp64 on the model's device."""
        summed: Tensor = self.accelerator.reduce(values, reduction="sum")
        return summed

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Loss and gradient of one global batch; returns the loss over all ranks."""
        del num_items_in_batch
        batch = self.iteration.batches[inputs["step"]]
        while True:
            try:
                if self.reference is None:
                    check_room_for_training(model, self.accelerator.device)
                    self._choose_attention(model, batch)
                    self.reference = self.find_reference(self)
                return self._global_batch(model, batch)
            except torch.OutOfMemoryError:
                pass  # until this block ends, the error's traceback holds what is to be freed
            self._take_smaller_packs(model)

    def _choose_attention(self, model: nn.Module, batch: GlobalBatch) -> None:
        """Attention over whole packs where this device proves, on the first pack, that it is that of the parts."""
        device = self.accelerator.device
        if road(model) == PLAIN or not varlen.exists_for(device):
            return
        training_mode(model)
        pack = self._packs(batch, batch.feedback_B, self.tokens_per_pack)[0].to(device)
        fault = whole_pack_fault(model, pack, self._backward, self.sum_over_ranks, self.iteration.precision)
        if fault is not None and self.accelerator.is_main_process:
            console.warn(f"attention goes part by part, which is slower and the same function: {fault}")

    def _take_smaller_packs(self, model: nn.Module) -> None:
        """After running out of memory: half as many tokens per pack; the result is the same."""
        if self.accelerator.num_processes > 1 or self.tokens_per_pack // 2 < MIN_TOKENS_PER_PACK:
            raise RunError(
                f"out of memory with tokens_per_pack {self.tokens_per_pack}",
                todo="set train.tokens_per_pack lower, train.gradient_checkpointing to true, or use LoRA; the same "
                "command then goes on",
            )
        model.zero_grad(set_to_none=True)
        self.tokens_per_pack //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        console.warn(f"out of memory: going on with tokens_per_pack {self.tokens_per_pack}; the result is the same")

    def _global_batch(self, model: nn.Module, batch: GlobalBatch) -> Tensor:
        training_mode(model)
        device = self.accelerator.device
        size = len(batch.feedback_B)
        z_raw = self._kl(model, batch)
        z = reference_point(z_raw)
        reference_B = torch.from_numpy(self._reference(batch.feedback_B, batch.feedback_B)).to(device)
        desirable_B = torch.from_numpy(self.iteration.tokens.desirable_F[batch.feedback_B]).to(device)
        logps_B = torch.zeros(size, dtype=torch.float64, device=device)
        losses_B = torch.zeros(size, dtype=torch.float64, device=device)
        packs = self._packs(batch, batch.feedback_B, self.tokens_per_pack)
        for pack, synchronise in _with_last(packs):
            with self._gradients(model, synchronise):
                logps_N = self._logps(model, pack)
                if not pack.slots:
                    self._backward(logps_N.sum() * 0.0)
                    continue
                slots = torch.tensor(pack.slots, device=device)
                rewards_N = logps_N - reference_B[slots].to(logps_N.dtype)
                losses_N = self.iteration.loss.of(rewards_N, desirable_B[slots], z)
                # Data parallelism averages gradients over ranks; the loss is a sum over them.
                self._backward(losses_N.sum() / size * self.accelerator.num_processes)
                logps_B[slots] = logps_N.detach().double()
                losses_B[slots] = losses_N.detach().double()
        logps_B, losses_B = self.sum_over_ranks(torch.stack([logps_B, losses_B])).unbind()
        counts = torch.tensor([self.tokens_computed, self._saving_is_due()], dtype=torch.float64, device=device)
        computed, due = self.sum_over_ranks(counts).tolist()
        self.control.should_save = self.control.should_save or due > 0
        self._check_finite(batch, logps_B)
        if self.state.global_step == 0 and self._starts_at_reference():
            self._check_first_step(logps_B, reference_B, z_raw, losses_B, desirable_B)
        loss = losses_B.sum() / size
        self.step_metrics = {
            **_metrics(logps_B, reference_B, desirable_B),
            "kto/loss": float(loss),
            "kl": z,
            "kl/raw": z_raw,
            "feedback": float(size),
            "tokens": computed,
        }
        return loss.to(torch.float32)

    def _saving_is_due(self) -> bool:
        """Whether a checkpoint is due by time; the main process alone has the clock."""
        minutes = self.iteration.train.checkpoint_minutes
        if minutes is None or not self.accelerator.is_main_process:
            return False
        return time.monotonic() - self.saved_at >= 60 * minutes

    def _kl(self, model: nn.Module, batch: GlobalBatch) -> float:
        """Mean of log pi(y'|x) - log pi_ref(y'|x) over the global batch."""
        device = self.accelerator.device
        logps_B = torch.zeros(len(batch.feedback_B), dtype=torch.float64, device=device)
        with torch.no_grad():
            for pack in self._packs(batch, batch.partner_B, FORWARD_ONLY * self.tokens_per_pack):
                logps_N = self._logps(model, pack)
                if pack.slots:
                    logps_B[torch.tensor(pack.slots, device=device)] = logps_N.double()
        logps_B = self.sum_over_ranks(logps_B)
        self._check_finite(batch, logps_B)
        reference_B = torch.from_numpy(self._reference(batch.feedback_B, batch.partner_B)).to(device)
        return float((logps_B - reference_B).mean())

    def _reference(self, feedback_B: Any, completions_B: Any) -> Any:
        if self.reference is None:
            raise RuntimeError("the reference is computed before the first step")
        return self.reference.of(self.iteration.tokens.prompt_F[feedback_B], completions_B)

    def _packs(self, batch: GlobalBatch, completions_B: Any, tokens_per_pack: int) -> list[Pack]:
        """This rank's packs for these completions of the batch's prompts; slots are places in the batch."""
        tokens = self.iteration.tokens
        places_B = np.arange(len(batch.feedback_B))
        grown = trees(
            tokens, tokens.prompt_F[batch.feedback_B], completions_B, places_B, self.iteration.train.max_length
        )
        limit = room(self.model, tokens_per_pack)
        return share(grown, self.accelerator.num_processes, limit)[self.accelerator.process_index]

    def _logps(self, model: nn.Module, pack: Pack) -> Tensor:
        self.tokens_computed += len(pack.ids_T)
        return branch_logprobs(model, pack.to(self.accelerator.device))

    @contextlib.contextmanager
    def _gradients(self, model: nn.Module, synchronise: bool) -> Iterator[None]:
        # FSDP2 without synchronisation keeps whole gradients on every device: 27 GiB for 7B. In shards they add up too.
        self.accelerator.gradient_state._set_sync_gradients(synchronise)  # noqa: SLF001 - as Trainer's own loop does
        together = synchronise or self.accelerator.is_fsdp2
        with contextlib.nullcontext() if together else self.accelerator.no_sync(model):
            yield

    def _backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def _check_finite(self, batch: GlobalBatch, logps_B: Tensor) -> None:
        if bool(torch.isfinite(logps_B).all()):
            return
        bad_B = (~torch.isfinite(logps_B)).cpu().numpy()
        raise RunError(
            f"step {self.state.global_step + 1}: the log-probability is not finite for {self._rows(batch, bad_B)}",
            todo="look at these rows; if they are sound, lower train.learning_rate. The last checkpoint is whole",
        )

    def _starts_at_reference(self) -> bool:
        """Whether the policy of the first step is the reference; an adapter that goes on has its own dropout."""
        iteration, lora = self.iteration, self.iteration.train.lora
        drops = lora is not None and lora.quantize is not None and lora.dropout > 0
        return iteration.reference.sha256 == iteration.parent.sha256 and not (iteration.number > 1 and drops)

    def _check_first_step(
        self, logps_B: Tensor, reference_B: Tensor, kl_raw: float, losses_B: Tensor, desirable_B: Tensor
    ) -> None:
        loss = self.iteration.loss
        weights_B = torch.where(desirable_B, loss.desirable, loss.undesirable)
        fault = first_step_fault(logps_B, reference_B, kl_raw, losses_B, weights_B, loss.beta, self.iteration.precision)
        if fault is not None:
            raise RunError(
                f"step 1: {fault}",
                expected="kl/raw 0 and every loss half its weight, but for rounding: the policy has not moved yet",
                todo="the model computes another function while it trains than before, or the folder `reference` of "
                "this iteration is of other weights or another machine: remove it and run the same command again",
            )

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        if norm is not None and not bool(torch.isfinite(torch.as_tensor(norm))):
            batch = self.iteration.batches[self.state.global_step]
            raise RunError(
                f"step {self.state.global_step + 1}: the gradient is not finite; its batch is "
                f"{self._rows(batch, np.ones(len(batch.feedback_B), dtype=bool))}",
                todo="look at these rows; if they are sound, lower train.learning_rate. The last checkpoint is whole",
            )
        return norm

    def _rows(self, batch: GlobalBatch, chosen_B: Any) -> str:
        return self.iteration.tokens.places(batch.feedback_B[chosen_B].tolist())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Transformers' metrics with the step's own beside them."""
        if "loss" in logs:
            logs = {**logs, **self.step_metrics}
            logs["loss"] = logs.pop("kto/loss", logs["loss"])
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.saved_at = time.monotonic()
        state = process_state()
        wait(state)  # every rank has written its share before the seal says so
        checkpoints.seal(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", state)


def _with_last(packs: list[Pack]) -> Iterator[tuple[Pack, bool]]:
    for number, pack in enumerate(packs, 1):
        yield pack, number == len(packs)


def _metrics(logps_B: Tensor, reference_B: Tensor, desirable_B: Tensor) -> dict[str, float]:
    """The usual metrics of preference training over one global batch; a kind that is absent has no metric."""
    rewards_B = logps_B - reference_B
    metrics = {}
    for name, chosen_B in (("chosen", desirable_B), ("rejected", ~desirable_B)):
        if bool(chosen_B.any()):
            metrics[f"rewards/{name}"] = float(rewards_B[chosen_B].mean())
            metrics[f"logps/{name}"] = float(logps_B[chosen_B].mean())
    if len(metrics) == 4:
        metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]
        # No pairs are needed: the share of (desirable, undesirable) couples of the batch that are ordered rightly.
        above = rewards_B[desirable_B][:, None] > rewards_B[~desirable_B][None, :]
        metrics["rewards/accuracies"] = float(above.double().mean())
    return metrics
