"""A published model as other programs read it: what transformers 5 writes under new names is there under the old ones.

transformers 4, and whatever is built on it or reads as it does, finds its keys where it has always found them: without
`rope_theta` at the top it takes 10,000, and says nothing. Old and new names stand side by side, and say the same.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kto_release.models import LocalModel, load_tokenizer
from kto_release.recipe import GenerationSection

OLDEST = {"transformers": "4.57", "vLLM": "0.32", "llama.cpp": "its state in llama-cpp-python 0.3.36"}
"""The oldest versions that releases were read with: ids and logits compared, the converter run."""

NEW_CLASSES = frozenset({"TokenizersBackend", "SentencePieceBackend", "PythonBackend", "PreTrainedTokenizerBase"})
"""Names of tokenizers that transformers 4 does not know."""
ANY_CLASS = "PreTrainedTokenizerFast"
"""What every version reads tokenizer.json with, whole and as it stands."""
LOCAL_KEYS = ("is_local", "local_files_only", "name_or_path", "_name_or_path", "backend")
"""Keys of a tokenizer's configuration that are true of one machine, or of one version of transformers, only."""
NOT_TAKEN_OVER = ("_name_or_path", "torch_dtype", "dtype", "transformers_version", "quantization_config")
"""Keys of the base's config.json that need not hold for what was trained from it."""

THETA_NAMES = {"gpt_neox": "rotary_emb_base", "gpt_neox_japanese": "rotary_emb_base"}
SHARE_NAMES = {"gpt_neox": "rotary_pct", "gpt_neox_japanese": "rotary_pct"}
"""Families whose configuration calls the base of the rotations, and the share that is rotated, something else."""
WIDE, NEAR = "full_attention", "sliding_attention"
"""Kinds of layers that have rotations of their own: their base was `rope_theta` and `rope_local_base_freq`."""
TOKEN_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def for_all_readers(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with every key under its old and its new name.

    `base` is the initial model's own config.json: what transformers 5 took in from it under another name comes back.
    """
    plain = dict(config)
    for key, value in base.items():
        if key not in plain and key not in NOT_TAKEN_OVER:
            plain[key] = value
    for key, value in plain.items():
        if isinstance(value, dict) and "model_type" in value:  # a part, such as the text model of one that sees
            part = base.get(key)
            plain[key] = for_all_readers(value, part if isinstance(part, dict) else {})
    plain.update(_old_names(plain))
    if "use_cache" in plain:  # training switches it off for itself
        plain["use_cache"] = base.get("use_cache", True)
    return plain


def _old_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the new keys of a configuration say, under the names that transformers 4 reads."""
    found: dict[str, Any] = {}
    if isinstance(config.get("dtype"), str):
        found["torch_dtype"] = config["dtype"]
    rotations = config.get("rope_parameters")
    if not isinstance(rotations, dict):
        return found
    if isinstance(rotations.get(WIDE), dict):
        near = rotations.get(NEAR)
        if isinstance(near, dict) and "rope_theta" in near:
            found["rope_local_base_freq"] = near["rope_theta"]
        rotations = rotations[WIDE]
    if any(isinstance(value, dict) for value in rotations.values()):
        return found  # kinds of layers that no old version had
    kind = str(config.get("model_type"))
    if "rope_theta" in rotations:
        found[THETA_NAMES.get(kind, "rope_theta")] = rotations["rope_theta"]
    if "partial_rotary_factor" in rotations:
        found[SHARE_NAMES.get(kind, "partial_rotary_factor")] = rotations["partial_rotary_factor"]
    if rotations.get("rope_type", "default") != "default":
        kept = {key: value for key, value in rotations.items() if key not in ("rope_theta", "partial_rotary_factor")}
        found["rope_scaling"] = kept
    return found


def tokenizer_for_all_readers(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json as every version of transformers reads it; `base` is the initial model's own.

    Absolute paths of this machine are left out.
    """
    plain = {
        key: value
        for key, value in config.items()
        if key not in LOCAL_KEYS and not (key.endswith(("_file", "_path")) and _is_absolute(value))
    }
    if plain.get("tokenizer_class") in {*NEW_CLASSES, None}:
        stated = base.get("tokenizer_class")
        plain["tokenizer_class"] = stated if stated not in {*NEW_CLASSES, None} else ANY_CLASS
    extra = plain.get("extra_special_tokens")
    if isinstance(extra, list):  # transformers 4 takes names with tokens here, and had another key for bare tokens
        del plain["extra_special_tokens"]
        if extra:
            plain["additional_special_tokens"] = extra
    return plain


def _is_absolute(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_absolute()


def generation_config(base: Mapping[str, Any], sampling: GenerationSection) -> dict[str, Any]:
    """generation_config.json: the tokens of `base`, and the sampling that the scores were made with, nothing else.

    What a base model adds (penalties, suppressed tokens) was not in force when it was evaluated, and flags that
    contradict each other can't be saved.
    """
    tokens = {key: base[key] for key in TOKEN_KEYS if base.get(key) is not None}
    version = {key: base[key] for key in ("transformers_version",) if key in base}
    if sampling.temperature == 0:
        return {**tokens, "do_sample": False, **version}
    # 0 is "all of them" for transformers, which takes 50 where nothing is said, and for vLLM.
    settings = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or 0}
    return {**tokens, "do_sample": True, **settings, **version}


def disagreements(folder: Path) -> Iterator[str]:
    """What other programs than transformers 5 would read differently, or not at all, a line each."""
    config = read_object(folder / "config.json")
    yield from _differences(config, "config.json")
    tokenizer = read_object(folder / "tokenizer_config.json")
    if tokenizer.get("tokenizer_class") in NEW_CLASSES:
        yield f"tokenizer_config.json: {tokenizer['tokenizer_class']!r} is no tokenizer of transformers 4"
    if isinstance(tokenizer.get("extra_special_tokens"), list):
        yield "tokenizer_config.json: transformers 4 can't read a list of extra_special_tokens"


def _differences(config: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in _old_names(config).items():
        if key not in config:
            yield f"{where}: {key} is missing, which transformers 4 reads"
        elif config[key] != value:
            yield f"{where}: {key} is {config[key]!r}, and the newer key says {value!r}"
    for key, value in config.items():
        if isinstance(value, dict) and "model_type" in value:
            yield from _differences(value, f"{where}, {key}")


def embedding_rows(folder: Path) -> int | None:
    """Rows of the embedding, by config.json; None where it does not say."""
    config = read_object(folder / "config.json")
    part = config.get("text_config")
    rows = config.get("vocab_size", part.get("vocab_size") if isinstance(part, dict) else None)
    return rows if isinstance(rows, int) else None


def beyond_embedding(folder: Path) -> str | None:
    """Which token has no row in the embedding of the model in `folder`; None where all have, or `embedding_rows` knows
    no rows. Raises `ModelError`.
    """
    rows = embedding_rows(folder)
    if rows is None:
        return None
    tokens = load_tokenizer(LocalModel(folder, folder.name, None, None)).get_vocab()
    token = max(tokens, key=lambda name: tokens[name], default=None)
    if token is not None and tokens[token] >= rows:
        return f"token {tokens[token]}, {token!r}, is beyond the embedding ({rows} rows)"
    for key, value in read_object(folder / "generation_config.json").items():
        ids = value if isinstance(value, list) else [value]
        if key in TOKEN_KEYS and any(not isinstance(one, int) or not 0 <= one < rows for one in ids):
            return f"generation_config.json: {key} {value!r} is beyond the embedding ({rows} rows)"
    return None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}
