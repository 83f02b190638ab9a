"""One iteration's optimization: from the parent's weights to the trained model's folder, resumable at any instant."""

import gc
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PrinterCallback, TrainingArguments, set_seed

from kto_release import console
from kto_release.files import write_record
from kto_release.recipe import ModelSection, TrainSection
from kto_release.templates import save_tokenizer
from kto_release.train import checkpoints, logps_store
from kto_release.train.arithmetic import keep_freed_memory, load_model, process_state, sharded
from kto_release.train.batches import GlobalBatch
from kto_release.train.logprobs import take_road
from kto_release.train.logps_store import Reference
from kto_release.train.loss import Weights
from kto_release.train.metrics import MetricsCallback
from kto_release.train.plain import road
from kto_release.train.proof import choose_road, proof_trees
from kto_release.train.tokens import Tokens
from kto_release.train.trainer import KTOTrainer, Objective
from kto_release.train.tree import FORWARD_ONLY

NOT_WEIGHTS = ("training_args.bin",)


class Job(NamedTuple):
    """What one iteration trains, and where."""

    number: int
    folder: Path
    parent: Path
    """Folder of the weights that it starts from."""
    parent_sha256: str
    reference: Path
    reference_sha256: str
    tokens: Tokens
    batches: list[GlobalBatch]
    weights: Weights
    precision: str
    title: str


def fit(job: Job, model_section: ModelSection, train: TrainSection, tokenizer: Any) -> None:
    """Train, and leave `job.folder/model`: fp32 weights with tokenizer and configuration. Skips if it is there."""
    target = job.folder / "model"
    if target.exists():
        return
    keep_freed_memory()
    set_seed(train.seed + job.number)
    model = _policy(job, model_section, train)
    trainer = KTOTrainer(
        model,
        arguments(job, train),
        Objective(
            job.tokens,
            job.batches,
            train.beta,
            job.weights,
            train.max_length,
            train.tokens_per_pack,
            job.precision,
            starts_at_reference=job.reference_sha256 == job.parent_sha256,
        ),
        lambda trainer: _reference(trainer, job, model_section, train),
        [],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.accelerator.num_processes > 1 and trainer.accelerator.is_main_process:
        kind = "FSDP2" if trainer.accelerator.is_fsdp2 else trainer.accelerator.distributed_type.value
        console.say(f"{trainer.accelerator.num_processes} processes, {kind}")
    resumed = checkpoints.newest(job.folder / "checkpoints")
    done = int(resumed.name.removeprefix("checkpoint-")) if resumed else 0
    metrics = MetricsCallback(job.folder / "metrics.jsonl", job.title, done)
    trainer.add_callback(metrics)
    try:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    finally:
        metrics.close()
    _save(trainer, job, model_section, train, tokenizer, target)
    trainer.accelerator.free_memory()
    del trainer, model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def arguments(job: Job, train: TrainSection) -> TrainingArguments:
    """Transformers' arguments: its loop, optimizer, schedule, checkpoints and trackers; the batches are ours."""
    cuda = torch.cuda.is_available()
    checkpointing = cuda if train.gradient_checkpointing is None else train.gradient_checkpointing
    return TrainingArguments(
        output_dir=str(job.folder / "checkpoints"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        max_steps=len(job.batches),
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler,
        warmup_steps=round(train.warmup_ratio * len(job.batches)),
        weight_decay=train.weight_decay,
        adam_beta2=train.adam_beta2,
        max_grad_norm=train.max_grad_norm,
        optim="adamw_torch_fused",  # one pass over the weights instead of ten
        bf16=job.precision == "bf16",
        use_cpu=not cuda,
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        save_strategy="steps",
        save_steps=train.checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(train.report_to) or "none",
        run_name=job.title,
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        seed=train.seed + job.number,
    )


def _policy(job: Job, model_section: ModelSection, train: TrainSection) -> Any:
    lora = train.lora
    model = load_model(job.parent, model_section, quantize=lora.quantize if lora else None)
    if torch.cuda.is_available() and not getattr(model, "is_quantized", False) and not sharded():
        model.to(process_state().device)  # where it will train, and where the proof takes no time
    chosen = choose_road(model, proof_trees(job.tokens, train.max_length))
    if process_state().is_main_process:
        write_record(job.folder / "road.json", chosen)
    if lora is None:
        return model
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if lora.quantize:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
        ),
    )


def _reference(trainer: KTOTrainer, job: Job, model_section: ModelSection, train: TrainSection) -> Reference:
    """The iteration's reference: stored, or computed now, by the policy where it still is the reference."""
    keys_K = logps_store.wanted(job.tokens, job.batches)
    key = logps_store.content_key(job.tokens, keys_K, job.reference_sha256, train.max_length, job.precision)
    folder = job.folder / "reference"
    stored = logps_store.load(folder, key, job.tokens)
    if stored is not None:
        return stored
    fresh = trainer.state.global_step == 0
    if fresh and job.reference_sha256 == job.parent_sha256:
        model = trainer.model_wrapped
    else:
        other = load_model(job.reference, model_section)
        take_road(other, road(trainer.model))
        model = trainer.accelerator.prepare_model(other, evaluation_mode=True)
    found = logps_store.compute(
        model,
        job.tokens,
        keys_K,
        max_length=train.max_length,
        tokens_per_pack=FORWARD_ONLY * trainer.tokens_per_pack,
        rank=trainer.accelerator.process_index,
        ranks=trainer.accelerator.num_processes,
        reduce=trainer.sum_over_ranks,
        advance=None,
    )
    if trainer.accelerator.is_main_process:
        logps_store.store(folder, key, found)
    return found


def _save(
    trainer: KTOTrainer, job: Job, model_section: ModelSection, train: TrainSection, tokenizer: Any, target: Path
) -> None:
    """Write the trained model beside its place, then move it there in one step."""
    part = target.with_name("model.part")
    if trainer.accelerator.is_main_process:
        shutil.rmtree(part, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(part))  # gathers sharded weights on every rank
    if trainer.accelerator.is_main_process:
        if train.lora is not None:
            _merge(part, job, model_section)
        save_tokenizer(tokenizer, part)
        for name in NOT_WEIGHTS:
            (part / name).unlink(missing_ok=True)
        part.replace(target)
    trainer.accelerator.wait_for_everyone()


def _merge(part: Path, job: Job, model_section: ModelSection) -> None:
    """Turn a folder with adapters into one with whole fp32 weights; the adapters stay beside it."""
    from peft import PeftModel

    adapter = job.folder / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    part.replace(adapter)
    base = load_model(job.parent, model_section)
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(part)
