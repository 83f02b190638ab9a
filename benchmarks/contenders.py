"""What training.py measures: one epoch of KTO by kto-release and by TRL, from the feedback to weights on disk."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kto_release.recipe import Recipe, TrainSection
from kto_release.train.device import resolve_precision

BATCH = 8
"""Feedback per optimizer step."""
MAX_LENGTH = 1024
LEARNING_RATE = 5e-7
PADDING = "<file_sep>"
"""TRL's padding token here: one that occurs nowhere in the feedback, so that padding can be counted."""


def precision() -> str:
    """bf16 or fp32: what `train.precision: auto` chooses on this hardware, for all contenders."""
    return resolve_precision(TrainSection())


class Count:
    """Tokens that entered a model, and how many of them were padding."""

    tokens = padding = 0


@contextmanager
def counted(padding: int | None) -> Iterator[Count]:
    """Count what any model's embedding is given, by whomever."""
    count = Count()

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding):
            count.tokens += inputs[0].numel()
            count.padding += int((inputs[0] == padding).sum())

    hook = register_module_forward_pre_hook(look)
    try:
        yield count
    finally:
        hook.remove()


def ours(contender: dict[str, Any], folder: Path) -> dict[str, float]:
    """One iteration of the training stage. The time is from reading the feedback to the model on disk.

    For synthetic feedback it is the optimization's alone, which is what grows with the feedback.
    """
    from kto_release.console import quiet_libraries
    from kto_release.run import Run
    from kto_release.train.fit import fit
    from kto_release.train.inputs import prepare
    from kto_release.train.iteration import make_iteration

    quiet_libraries()
    recipe = recipe_of(contender)
    run = Run.open(recipe, folder / "runs")
    started = time.monotonic()
    run.create()
    inputs = prepare(run)
    iteration = make_iteration(inputs, 1, inputs.initial, precision())
    if contender["who"] == "scaling":
        started = time.monotonic()
    with counted(inputs.tokenizer.convert_tokens_to_ids(PADDING)) as count:
        fit(iteration)
    tokens = iteration.tokens
    useful = sum(len(tokens.prompt(p)) for p in tokens.prompt_F.tolist())
    useful += sum(len(tokens.completion(feedback)) for feedback in range(len(tokens)))
    return {
        "seconds": time.monotonic() - started,
        "tokens": count.tokens,
        "padding": count.padding,
        "useful": useful,
        "rows": len(tokens),
    }


def reading(contender: dict[str, Any], folder: Path) -> dict[str, float]:
    """All that happens to feedback before the first step: read, checked, rendered, tokenised, counted, compared."""
    from kto_release.console import quiet_libraries
    from kto_release.run import Run
    from kto_release.train.inputs import prepare

    quiet_libraries()
    run = Run.open(recipe_of(contender), folder / "runs")
    started = time.monotonic()
    run.create()
    tokens = prepare(run).tokens[0]
    seconds = time.monotonic() - started
    return {"seconds": seconds, "tokens": tokens.facts.tokens, "rows": len(tokens)}


def recipe_of(contender: dict[str, Any]) -> Recipe:
    """The recipe of one iteration over the contender's feedback, without probe, checkpoints or trackers."""
    return Recipe.model_validate(
        {
            "name": f"benchmark-{time.time_ns()}",
            "model": {"base": contender["model"], "template": "base"},
            "data": {"source": contender["feedback"], "partitions": 1},
            "train": {
                "batch_size": BATCH,
                "learning_rate": LEARNING_RATE,
                "max_length": contender.get("max_length", MAX_LENGTH),
                "tokens_per_pack": contender.get("tokens_per_pack", MAX_LENGTH),
                "checkpoint_minutes": None,
                "lora": contender.get("lora"),
            },
        }
    )


def trl(contender: dict[str, Any], folder: Path) -> dict[str, float]:
    """TRL's KTOTrainer on the same feedback. The time is from reading the feedback to the model on disk."""
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import KTOConfig, KTOTrainer

    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(contender["model"])
    tokenizer.pad_token = PADDING
    model = AutoModelForCausalLM.from_pretrained(contender["model"], dtype=torch.float32)
    arguments = KTOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=contender["micro_batch"],
        gradient_accumulation_steps=BATCH // contender["micro_batch"],
        gradient_checkpointing=contender["checkpointing"],
        precompute_ref_log_probs=contender["precompute"],
        num_train_epochs=1,
        max_length=MAX_LENGTH,
        learning_rate=LEARNING_RATE,
        optim="adamw_torch_fused",
        bf16=precision() == "bf16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    with counted(tokenizer.pad_token_id) as count:
        started = time.monotonic()
        pairs = [json.loads(line) for line in Path(contender["feedback"]).read_text(encoding="utf-8").splitlines()]
        data = Dataset.from_list(pairs)  # TRL makes two rows of each pair itself
        trainer = KTOTrainer(model=model, args=arguments, processing_class=tokenizer, train_dataset=data)
        trainer.train()
        trainer.save_model(str(folder / "trl-model"))
        seconds = time.monotonic() - started
    whole = [pair["prompt"] + pair[side] for pair in pairs for side in ("chosen", "rejected")]
    lengths = [len(tokenizer.apply_chat_template(messages)["input_ids"]) for messages in whole]
    return {"seconds": seconds, "tokens": count.tokens, "padding": count.padding, "useful": sum(lengths)}
