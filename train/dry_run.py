"""`train --dry-run`: what would happen, as far as it can be known without writing or training anything."""

import shutil
import tempfile
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kto_release import console
from kto_release.errors import DataError, HubError, ModelError
from kto_release.feedback.partitions import find_partitions, read
from kto_release.models import LocalModel, locate
from kto_release.run import Run
from kto_release.templates import Template, eos_ids
from kto_release.templates.contract import check_contract
from kto_release.train.batches import GlobalBatch, all_batches
from kto_release.train.device import recomputes_activations, resolve_precision
from kto_release.train.distributed import refuse_quantized_shards
from kto_release.train.fits import check_base, check_generation, check_rows_fit, check_vocabulary, read_config
from kto_release.train.inputs import open_tokenizer, show_feedback, show_moment
from kto_release.train.launch_file import Devices, read_devices
from kto_release.train.loss import loss_for
from kto_release.train.memory import GIB, around, estimate
from kto_release.train.pace import count_work, measure
from kto_release.train.tokenizing import tokenize, tokenize_each
from kto_release.train.tokens import Tokens, with_overlaps

SAMPLES = 2
SHOWN_IDS = 12


def show_plan(run: Run, launch: Path | None = None) -> None:
    """Print the plan. What can't be reached is named in one line each, and the rest is shown all the same.

    Raises `DataError` with every row that can't be used.
    """
    recipe = run.recipe
    train = recipe.train
    console.heading(f"Plan of {recipe.name}")
    console.say(f"model      {recipe.model.base}, template {recipe.model.template}")
    names = [Path(source).name if Path(source).is_absolute() else source for source in recipe.data.sources]
    console.say(f"feedback   {', '.join(names)}")
    console.say(f"iterations {recipe.data.iterations}, reference: {train.reference}")
    how = "all weights in fp32" if train.lora is None else f"LoRA of rank {train.lora.rank}"
    console.say(
        f"training   {how}, beta {train.beta:g}, learning rate {train.learning_rate:g}, {train.batch_size} feedback "
        f"per step, {train.epochs} epoch{'s' if train.epochs > 1 else ''}, max_length {train.max_length}"
    )
    done = len(run.iteration_records())
    if done:
        console.say(f"finished   {done} of {recipe.data.iterations} iterations: they would be skipped")
    base = _reach(lambda: locate(recipe.model.base, recipe.model.revision, config_only=True))
    if base is not None:
        check_base(base.path, recipe)
    opened = _reach(lambda: _memory_and_tokenizer(run, base, launch)) if base is not None else None
    if base is None or opened is None:
        _reach(lambda: _check_rows(run))
        return
    tokenizer, template = opened
    check_generation(base.path)
    check_vocabulary(tokenizer, base.path, trust_remote_code=recipe.model.trust_remote_code)
    check_contract(tokenizer, template, eos_ids(base.path))
    show_moment(tokenizer)
    _reach(lambda: _feedback(run, tokenizer, base, read_devices(launch)), HubError)


def _reach(step: Any, missing: Any = (ModelError, HubError)) -> Any:
    try:
        return step()
    except missing as error:
        console.warn(f"not shown: {error.problem.splitlines()[0]}")
        return None


def _memory_and_tokenizer(run: Run, base: LocalModel, launch: Path | None) -> tuple[Any, Template]:
    recipe = run.recipe
    config = read_config(base.path, recipe.model.trust_remote_code)
    precision = resolve_precision(recipe.train)
    checkpointing = recomputes_activations(recipe.train)
    devices = read_devices(launch)
    found = estimate(config, recipe.train, devices, bf16=precision == "bf16", checkpointing=checkpointing)
    parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in found._asdict().items())
    console.say(f"memory     about {found.total() / GIB:.1f} GiB per device ({devices.name}): {parts}")
    if torch.cuda.is_available():
        console.say(f"           free: {', '.join(f'{free / GIB:.1f}' for free in _free_memory())} GiB")
    beside = around(config, recipe, devices)
    console.say(f"host       about {beside.host / GIB:.1f} GiB of memory per machine while weights are loaded")
    there = next(folder for folder in (run.path, *run.path.parents) if folder.exists())
    console.say(
        f"disk       about {beside.disk_training / GIB:.1f} GiB while training, {beside.disk_after / GIB:.1f} GiB "
        f"after; free: {shutil.disk_usage(there).free / GIB:.1f} GiB"
    )
    if devices.shards > 1 and recipe.train.lora is not None and recipe.train.lora.quantize:
        refuse_quantized_shards()
    return open_tokenizer(run, base, keep=False)


def _free_memory() -> list[int]:
    return [torch.cuda.mem_get_info(device)[0] for device in range(torch.cuda.device_count())]


def _check_rows(run: Run) -> None:
    """Read the feedback without a tokenizer: rows that can't be used are shown all the same."""
    data = run.recipe.data
    found = find_partitions(data)
    parts = [*found.iterations, *([found.held_out] if found.held_out else [])]
    unknown = {s.hub_id for s in found.iterations[0].sources if s.hub_id and s.revision is None}
    for source in unknown:
        console.warn(f"not shown: rows and tokens of {source!r}, since the Hub can't be reached")
    console.say(f"partitions {', '.join(partition.name for partition in found.iterations)}")
    errors = []
    for part in [] if unknown else parts:
        try:
            deque(read(part, data), maxlen=0)
        except DataError as error:
            errors.append(error)
    if errors:
        raise DataError.together(errors)


def _feedback(run: Run, tokenizer: Any, base: LocalModel, devices: Devices) -> None:
    recipe = run.recipe
    found = find_partitions(recipe.data)
    with tempfile.TemporaryDirectory(prefix="kto-release-") as scratch:
        tokens = tokenize_each(
            {
                name: partial(
                    tokenize, Path(scratch) / name, partition, recipe.data, recipe.train, tokenizer, "dry run"
                )
                for name, partition in found.named().items()
            }
        )
        check_rows_fit(base.path, tokens.values(), recipe.train.max_length, recipe.model.trust_remote_code)
        show_feedback(with_overlaps(tokens))
        rows = []
        for number in range(1, recipe.data.iterations + 1):
            own = tokens[f"iteration {number}"]
            batches, desirable = all_batches(own, recipe.train, number), own.facts.kept.desirable
            loss = loss_for(recipe.train, desirable, len(own) - desirable)
            rows.append([number, len(batches), _sizes(batches), f"{loss.desirable:.4g}", loss.undesirable])
        console.table(
            "Iterations",
            ["", "steps", "feedback per step", "desirable weight", "undesirable weight"],
            rows,
        )
        _times(run, base, [tokens[f"iteration {n}"] for n in range(1, recipe.data.iterations + 1)], devices)
        console.say("padding tokens: 0 (prompts are shared by their completions, and packs are laid end to end)")
        first = tokens["iteration 1"]
        _samples(first, all_batches(first, recipe.train, 1)[0], tokenizer, recipe.train.max_length)


def _times(run: Run, base: LocalModel, partitions: Sequence[Tokens], devices: Devices) -> None:
    """Minutes of each iteration's steps and reference, by one pack measured here."""
    train, device = run.recipe.train, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = read_config(base.path, run.recipe.model.trust_remote_code)
    batches = [all_batches(own, train, number) for number, own in enumerate(partitions, 1)]
    pace = measure(
        config,
        partitions[0],
        batches[0][0],
        resolve_precision(train),
        device,
        checkpointing=recomputes_activations(train),
    )
    if pace is None:
        console.say(f"time       not measured: {device.type} has no room for the model, or it computes no prompt trees")
        return
    work = [count_work(own, b, train, devices.processes) for own, b in zip(partitions, batches, strict=True)]
    minutes = ", ".join(f"{pace.seconds(own) / 60:.1f}" for own in work)
    console.say(
        f"time       about {minutes} minutes for the iterations' steps and references on {devices.name} such as this "
        f"{device.type} ({1 / pace.trained:,.0f} tokens/s measured on one pack); start, saving and probe come on top"
    )


def _sizes(batches: Sequence[GlobalBatch]) -> str:
    sizes = sorted({len(batch.feedback_B) for batch in batches})
    return f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])


def _samples(tokens: Tokens, batch: GlobalBatch, tokenizer: Any, max_length: int) -> None:
    """The first rows of the first step: ids, what is trained on, tree and KL partner."""
    console.heading("The first rows of the first step")
    for feedback, partner in list(zip(batch.feedback_B.tolist(), batch.partner_B.tolist(), strict=True))[:SAMPLES]:
        prompt_number = int(tokens.prompt_F[feedback])
        prompt, completion = tokens.prompt(prompt_number), tokens.completion(feedback)
        siblings = int((tokens.prompt_F == prompt_number).sum())
        label = "desirable" if tokens.desirable_F[feedback] else "undesirable"
        console.say()
        console.say(f"{tokens.where(feedback)}, {label}; its prompt is shared by {siblings} completions")
        console.say(f"  prompt, {len(prompt)} tokens, not trained on: {_ids(prompt)}")
        console.say(f"    {tokenizer.decode(prompt)!r}")
        last = len(prompt) + len(completion) - 1
        console.say(
            f"  completion, {len(completion)} tokens at positions {len(prompt)} to {last}, "
            f"all trained on: {_ids(completion)}"
        )
        console.say(f"    {tokenizer.decode(completion)!r}")
        other = tokens.partner(prompt_number, partner, max_length)
        console.say(f"  KL partner, {len(other)} tokens of {tokens.where(partner)}: {_ids(other)}")
        console.say(f"    {tokenizer.decode(other)!r}")


def _ids(ids: Any) -> str:
    plain = np.asarray(ids).tolist()
    if len(plain) <= SHOWN_IDS:
        return str(plain)
    half = SHOWN_IDS // 2
    return f"[{', '.join(map(str, plain[:half]))}, … {', '.join(map(str, plain[-half:]))}]"
