"""One iteration's optimization: from the parent's weights to the trained model's folder, resumable at any instant."""

import contextlib
import gc
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments, set_seed

from kto_release import console
from kto_release.errors import RunError
from kto_release.files import write_record
from kto_release.templates import save_tokenizer
from kto_release.train import checkpoints, logps_store
from kto_release.train.device import keep_freed_memory, process_state, recomputes_activations
from kto_release.train.distributed import check_kind, heed_launch, one_device, save_as, sharded
from kto_release.train.iteration import Iteration
from kto_release.train.logps_store import Reference
from kto_release.train.metrics import MetricsCallback
from kto_release.train.model import load_model, merge, with_adapters
from kto_release.train.other_weights import holding
from kto_release.train.placing import halve
from kto_release.train.proof import choose_road, proof_trees
from kto_release.train.saved import check_trained, is_complete
from kto_release.train.trainer import KTOTrainer
from kto_release.train.tree import FORWARD_ONLY
from kto_release.train.waiting import from_main, together, wait

ADAPTER = "adapter"
NOT_WEIGHTS = ("training_args.bin",)


def fit(iteration: Iteration) -> None:
    """Train, and leave `model/` in its folder: fp32 weights with tokenizer and configuration. Skips if it is there."""
    target = iteration.folder / "model"
    if is_complete(target):
        return
    keep_freed_memory()
    set_seed(iteration.train.seed + iteration.number)
    lora = iteration.train.lora
    heed_launch(iteration.precision, quantized=lora is not None and lora.quantize is not None)
    model = _policy(iteration)
    trainer = KTOTrainer(model, arguments(iteration), iteration, _reference)
    trainer.remove_callback(PrinterCallback)
    if trainer.accelerator.num_processes > 1 and trainer.accelerator.is_main_process:
        kind = "FSDP2" if trainer.accelerator.is_fsdp2 else trainer.accelerator.distributed_type.value
        console.say(f"{trainer.accelerator.num_processes} processes, {kind}")
    resumed = checkpoints.newest(iteration.folder / "checkpoints")
    if resumed is not None and (lora is None or not trainer.accelerator.is_fsdp2):  # adapters are small, and whole too
        check_kind(resumed, trainer.accelerator)
    done = int(resumed.name.removeprefix("checkpoint-")) if resumed else 0
    metrics = MetricsCallback(iteration.folder / "metrics.jsonl", iteration.title, done)
    trainer.add_callback(metrics)
    try:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    finally:
        metrics.close()
    _save(trainer, iteration, target)
    trainer.accelerator.free_memory()
    del trainer, model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def arguments(iteration: Iteration) -> TrainingArguments:
    """Transformers' arguments: its loop, optimizer, schedule, checkpoints and trackers; the batches are ours."""
    train, steps = iteration.train, len(iteration.batches)
    checkpointing = recomputes_activations(train)
    args = TrainingArguments(
        output_dir=str(iteration.folder / "checkpoints"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        max_steps=steps,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler,
        warmup_steps=round(train.warmup_ratio * steps),
        weight_decay=train.weight_decay,
        adam_beta2=train.adam_beta2,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch_fused",  # one pass over the weights instead of ten
        bf16=iteration.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        save_strategy="steps",
        save_steps=train.checkpoint_every or steps,  # at the last step nothing is saved; time says when, besides
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(train.report_to) or "none",
        run_name=iteration.title,
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        seed=train.seed + iteration.number,
    )
    one_device(args)
    return args


def _policy(iteration: Iteration) -> Any:
    """The model that is trained, proved to compute what its own forward computes."""
    lora, tokens = iteration.train.lora, iteration.tokens
    section = iteration.inputs.run.recipe.model
    quantize = lora.quantize if lora else None
    model = load_model(_base(iteration), section, quantize=quantize, precision=iteration.precision)
    if torch.cuda.is_available() and not getattr(model, "is_quantized", False) and not sharded():
        model.to(process_state().device)  # where it will train, and where the proof takes no time
    wait(process_state())  # loading takes each process another time
    chosen = choose_road(model, proof_trees(tokens, iteration.train.max_length))
    if process_state().is_main_process:
        write_record(iteration.folder / "road.json", chosen)
    if lora is None:
        return model
    if not quantize and iteration.precision == "bf16" and not sharded():  # shards want one dtype
        halve(model)
    return with_adapters(model, lora, _adapter_before(iteration) if quantize else None)


def _base(iteration: Iteration) -> Path:
    """The weights below the adapters: 4-bit ones stay the initial model's for the whole run."""
    lora = iteration.train.lora
    if lora is not None and lora.quantize is not None:
        return iteration.inputs.base.path
    return iteration.weights_of(iteration.parent)


def _adapter_before(iteration: Iteration) -> Path | None:
    """The adapter that a 4-bit base goes on with; the first iteration has none."""
    if iteration.number == 1:
        return None
    folder = iteration.inputs.run.iteration(iteration.number - 1) / ADAPTER
    if not (folder / "adapter_config.json").is_file():
        raise RunError(
            f"the adapter of iteration {iteration.number - 1} is gone, and 4-bit training goes on from it",
            todo=f"restore {str(folder)!r}, or remove {str(folder.parent)!r} to train that iteration again",
        )
    return folder


def _reference_weights(trainer: KTOTrainer) -> contextlib.AbstractContextManager[None]:
    """The prepared policy as the iteration's reference, for one pass."""
    iteration, lora = trainer.iteration, trainer.iteration.train.lora
    is_initial = iteration.reference.sha256 == iteration.inputs.initial.sha256
    if trainer.state.global_step == 0 and iteration.reference.sha256 == iteration.parent.sha256:
        return contextlib.nullcontext()
    if lora is None or lora.quantize is None:
        return holding(
            trainer.model_wrapped,
            lambda: load_model(iteration.weights_of(iteration.reference), iteration.inputs.run.recipe.model),
            trainer.accelerator.device,
            main=trainer.accelerator.is_main_process,
        )
    if not is_initial:
        raise RunError(
            f"the reference of iteration {iteration.number} is gone",
            todo=f"remove {str(iteration.folder)!r} to start the iteration again",
        )
    without: contextlib.AbstractContextManager[None] = trainer.model.disable_adapter()
    return without


def _reference(trainer: KTOTrainer) -> Reference:
    """The iteration's reference: stored, or computed now, by the policy where it still is the reference."""
    iteration, train = trainer.iteration, trainer.iteration.train
    tokens = iteration.tokens
    keys_K = logps_store.wanted(tokens, iteration.batches)
    key = logps_store.content_key(tokens, keys_K, iteration.reference.sha256, train.max_length, iteration.precision)
    folder = iteration.folder / "reference"
    state = process_state()
    # The main process says: on a network disk another one may not see the file yet, and would compute alone.
    stored = from_main(state, logps_store.load(folder, key, tokens) if state.is_main_process else None)
    if stored is not None:
        return Reference(*stored)
    with _reference_weights(trainer):
        found = logps_store.compute(
            trainer.model_wrapped,
            tokens,
            keys_K,
            max_length=train.max_length,
            tokens_per_pack=FORWARD_ONLY * trainer.tokens_per_pack,
            rank=trainer.accelerator.process_index,
            ranks=trainer.accelerator.num_processes,
            reduce=trainer.sum_over_ranks,
        )
    if trainer.accelerator.is_main_process:
        logps_store.store(folder, key, found)
    return found


def _save(trainer: KTOTrainer, iteration: Iteration, target: Path) -> None:
    """Write the trained model beside its place, then move it there in one step."""
    part, state = target.with_name("model.part"), process_state()
    with together(state):
        if state.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
    if trainer.is_fsdp_enabled:
        save_as(trainer.accelerator, "FULL_STATE_DICT")  # checkpoints are in shards
    with together(state):
        trainer.save_model(str(part))  # gathers sharded weights on every rank; the main process writes
        if state.is_main_process:
            _hand_over(iteration, part, target)


def _hand_over(iteration: Iteration, part: Path, target: Path) -> None:
    """Make of what the trainer saved in `part` the iteration's model, and move it to `target`."""
    if iteration.train.lora is not None:
        section, quantize = iteration.inputs.run.recipe.model, iteration.train.lora.quantize
        merge(part, iteration.folder / ADAPTER, _base(iteration), section, quantize)
    save_tokenizer(iteration.inputs.tokenizer, part)
    for name in NOT_WEIGHTS:
        (part / name).unlink(missing_ok=True)
    check_trained(part, iteration.weights_of(iteration.parent))
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
