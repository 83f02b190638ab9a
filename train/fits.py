"""Whether model, tokenizer and rows go together: what would fail, or be wrong, only while training."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kto_release import console
from kto_release.errors import ModelError
from kto_release.loading import FAILURES, first_line
from kto_release.recipe import LoraSection, Recipe
from kto_release.train.tokens import Tokens

SHOWN = 8


def check_base(folder: Path, recipe: Recipe) -> None:
    """Raises `ModelError` for a base that is no causal model of whole weights, or that lacks what LoRA is to adapt.

    By its configuration alone: its weights need not be there.
    """
    import torch
    from transformers import AutoModelForCausalLM

    trust_remote_code = recipe.model.trust_remote_code
    config = read_config(folder, trust_remote_code)
    check_unquantized(folder)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except FAILURES as error:
        raise ModelError(
            f"transformers makes no causal language model of {folder.name!r}: {first_line(error)}",
            expected="a causal language model, with its own configuration in config.json",
        ) from None
    if recipe.train.lora is not None:
        with_new_adapters(model, recipe.train.lora)


def read_config(folder: Path, trust_remote_code: bool) -> Any:
    """A model's configuration. Raises `ModelError` where transformers makes nothing of it."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except FAILURES as error:
        raise ModelError(
            f"the configuration of {folder.name!r} can't be used: {first_line(error)}",
            expected="config.json of a model type that the installed transformers knows",
        ) from None


def with_new_adapters(model: Any, lora: LoraSection) -> Any:
    """The model with adapters that change nothing yet. Raises `ModelError` where it lacks what they are to adapt."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )
    named = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _is_matrix(module)})
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        more = ", …" if len(named) > SHOWN else ""
        raise ModelError(
            f"train.lora.target_modules: {lora.target_modules!r}: {first_line(error)}",
            expected=f"all-linear, or some of {', '.join(named[:SHOWN])}{more}",
        ) from None


def _is_matrix(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.ndim == 2


def check_unquantized(folder: Path) -> None:
    """Raises `ModelError` where the weights of a base model are stored in a few bits."""
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if stored is not None:
        method = stored.get("quant_method", "an unknown method") if isinstance(stored, dict) else stored
        raise ModelError(
            f"the weights of {folder.name!r} are quantised ({method}), and training needs whole ones",
            todo="give model.base the model that it was made from; train.lora.quantize: 4bit quantises it by itself",
        )


def check_generation(folder: Path) -> None:
    """Raises `ModelError` where the base's generation_config.json can't be read; warns where it could not be saved.

    Then only its special tokens are kept, see `settle_generation`: the model would be trained, and could not be saved.
    """
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return
    try:
        problem = _unsaveable(GenerationConfig.from_pretrained(folder))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"generation_config.json of {folder.name!r} can't be read: {_line(error)}",
            expected="what transformers writes as such",
            todo="mend the file, or remove it where config.json has the eos_token_id",
        ) from None
    if problem is not None:
        console.warn(
            f"generation_config.json of {folder.name!r} contradicts itself, and transformers refuses to save it: "
            f"{problem}; of it only the special tokens are kept"
        )


def settle_generation(model: Any) -> None:
    """Keep only the special tokens of a generation configuration that transformers would refuse to save."""
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    if own is None or _unsaveable(own) is None:
        return
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(own, name, None) for name in names})


def _unsaveable(generation: Any) -> str | None:
    try:
        generation.validate(strict=True)
    except (ValueError, TypeError) as error:
        return _line(error)
    return None


def _line(error: Exception) -> str:
    """What a message of several lines says, on one."""
    return " ".join(str(error).split()) or type(error).__name__


def check_vocabulary(tokenizer: Any, folder: Path, *, trust_remote_code: bool) -> None:
    """Warns where the tokenizer knows tokens beyond the model's embedding: such a model can't be published."""
    config = read_config(folder, trust_remote_code).get_text_config(decoder=True)
    rows, largest = getattr(config, "vocab_size", None), max(tokenizer.get_vocab().values(), default=0)
    if rows is not None and largest >= rows:
        console.warn(
            f"the tokenizer of {folder.name!r} has {tokenizer.convert_ids_to_tokens(largest)!r} as token {largest}, "
            f"beyond the embedding ({rows} rows): `kto-release publish` will refuse such a model; call "
            "`model.resize_token_embeddings(len(tokenizer))` and save it"
        )


def check_rows_fit(folder: Path, every: Iterable[Tokens], max_length: int, trust_remote_code: bool) -> None:
    """Raises `ModelError` for ids beyond the embedding, or conversations beyond the model's positions."""
    config = read_config(folder, trust_remote_code).get_text_config(decoder=True)
    rows = getattr(config, "vocab_size", None)
    positions = getattr(config, "max_position_embeddings", None)
    for tokens in every:
        largest = tokens.largest_id()
        if rows is not None and largest >= rows:
            raise ModelError(
                f"{tokens.facts.name}: token {largest} is beyond the embedding of {folder.name!r} ({rows} rows)",
                expected="a model whose embedding was resized when tokens were added to its tokenizer",
                todo="call `model.resize_token_embeddings(len(tokenizer))` and save it, or take another template",
            )
        longest = min(max_length, sum(map(len, tokens.longest())))
        if positions is not None and longest > positions:
            raise ModelError(
                f"{tokens.facts.name}: a conversation can have {longest} tokens, but {folder.name!r} has "
                f"{positions} positions",
                todo=f"set train.max_length to {positions}",
            )
