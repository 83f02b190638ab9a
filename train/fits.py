"""Whether model, tokenizer and rows go together: what would fail, or be wrong, only while training."""

import json
from collections.abc import Iterable
from pathlib import Path

from kto_release.errors import ModelError
from kto_release.train.tokens import Tokens


def check_unquantized(folder: Path) -> None:
    """Raises `ModelError` where the weights of a base model are stored in a few bits."""
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if stored is not None:
        method = stored.get("quant_method", "an unknown method") if isinstance(stored, dict) else stored
        raise ModelError(
            f"the weights of {folder.name!r} are quantised ({method}), and training needs whole ones",
            todo="give model.base the model that it was made from; train.lora.quantize: 4bit quantises it by itself",
        )


def check_rows_fit(folder: Path, every: Iterable[Tokens], max_length: int, trust_remote_code: bool) -> None:
    """Raises `ModelError` for ids beyond the embedding, or conversations beyond the model's positions."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config(decoder=True)
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
