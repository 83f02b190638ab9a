"""The published model as one GGUF file, by the `gguf` package: names, arithmetic and layout are llama.cpp's own.

llama.cpp's converter is a program of its repository and on no package index, so what it knows of the Llama, Mistral and
Qwen families stands here: which architecture a configuration is, how query and key rows are ordered, and by which name
llama.cpp knows how a tokenizer cuts a text into words. Whatever is not known is an error; nothing is guessed.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kto_release.digests import weight_files
from kto_release.errors import ReleaseError

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""llama.cpp's name for a model_type."""
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}"
    r"\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = {
    (LLAMA3,): "llama-bpe",
    (QWEN2,): "qwen2",
    (TEKKEN,): "tekken",
    ("digits", "gpt2"): "smollm",
    ("gpt2",): "gpt-2",
}
"""llama.cpp's name for how a byte-level tokenizer cuts a text into words, by its steps."""
FAMILIES = "Llama's, Mistral's and Qwen's (qwen2, qwen3)"


def convert(folder: Path, target: Path, kind: str, *, name: str) -> None:
    """Write the model in `folder` to `target` with matrices of the type `kind` (f32, f16, bf16 or q8_0).

    Vectors stay fp32, as llama.cpp wants them. Raises `ReleaseError` for a model of another family, or with a part that
    llama.cpp would read differently.
    """
    import gguf

    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    architecture = architecture_of(config)
    writer = gguf.GGUFWriter(target, architecture)
    try:
        _write_shape(writer, config, name)
        writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[kind]])
        _write_tokenizer(writer, folder, int(config["vocab_size"]))
        names = gguf.get_tensor_name_map(_model_architecture(architecture), int(config["num_hidden_layers"]))
        for key, values in _tensors(folder):
            known = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if known is None:
                raise ReleaseError(f"llama.cpp knows no tensor {key!r}", expected=f"a model of {FAMILIES} families")
            ordered = _permuted(values, key, config) if architecture == "llama" else values
            _add(writer, known, ordered, kind)
        for key, values in _long_context(config):
            writer.add_tensor(key, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def architecture_of(config: dict[str, Any]) -> str:
    """llama.cpp's architecture for a configuration. Raises `ReleaseError` where none computes the same."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ReleaseError(
            f"release.gguf: models of the type {kind!r} are not converted",
            expected=f"one of {FAMILIES} families",
            todo="leave release.gguf out; llama.cpp's own converter knows more",
        )
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", True) and window < config["max_position_embeddings"]:
        raise ReleaseError(
            f"release.gguf: llama.cpp does not keep to this model's sliding window of {window} tokens",
            todo="leave release.gguf out",
        )
    return ARCHITECTURES[kind]


def _model_architecture(name: str) -> Any:
    import gguf

    return next(kind for kind, known in gguf.MODEL_ARCH_NAMES.items() if known == name)


def _write_shape(writer: Any, config: dict[str, Any], name: str) -> None:
    heads = int(config["num_attention_heads"])
    size = int(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_name(name)
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary embedding's parameters, of a kind that is converted."""
    found = {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_parameters") or {})}
    kind = found.get("rope_type", "default")
    if kind not in ("default", "llama3"):
        raise ReleaseError(
            f"release.gguf: rotary embeddings of the type {kind!r} are not converted",
            expected="default, or llama3",
            todo="leave release.gguf out; llama.cpp's own converter knows more",
        )
    return found


def _long_context(config: dict[str, Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Llama 3.1's factors on the frequencies, which llama.cpp reads as a tensor."""
    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return
    size = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    wave = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, size, 2) / size)
    old, factor = float(rope["original_max_position_embeddings"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    smooth = (old / wave - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wave < old / high, 1.0, np.where(wave > old / low, factor, between))
    yield "rope_freqs.weight", factors.astype(np.float32)


def _tensors(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    from safetensors import safe_open

    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                yield key, file.get_tensor(key).float().numpy()


def _permuted(values: NDArray[np.float32], key: str, config: dict[str, Any]) -> NDArray[np.float32]:
    """Rows of query and key as llama.cpp rotates them: pairs side by side, where transformers rotates halves."""
    heads = {".self_attn.q_proj.": "num_attention_heads", ".self_attn.k_proj.": "num_key_value_heads"}
    count = next(
        (config.get(name) or config["num_attention_heads"] for part, name in heads.items() if part in key), None
    )
    if count is None:
        return values
    rows = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(values.shape))


def _add(writer: Any, name: str, values: NDArray[np.float32], kind: str) -> None:
    import gguf

    if values.ndim < 2 or kind == "f32":
        writer.add_tensor(name, values)
        return
    if kind == "f16" and not np.all(np.abs(values) <= np.finfo(np.float16).max):
        raise ReleaseError(f"{name} holds values beyond float16's range", todo="take f16 out of release.gguf")
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    if kind == "q8_0" and values.shape[-1] % 32:
        wanted = gguf.GGMLQuantizationType.F16  # as llama.cpp does with rows that are no whole number of blocks
    writer.add_tensor(name, gguf.quants.quantize(values, wanted), raw_dtype=wanted)


def _write_tokenizer(writer: Any, folder: Path, rows: int) -> None:
    import gguf

    if (folder / "tokenizer.model").is_file():
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        tokens, scores, types = map(list, zip(*gguf.SentencePieceVocab(folder).all_tokens(), strict=True))
        missing = range(len(tokens), rows)
        tokens += [f"[PAD{number}]".encode() for number in missing]
        scores += [-1000.0 for _ in missing]
        types += [gguf.TokenType.UNUSED for _ in missing]
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        gguf.SpecialVocab(folder, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)
        return
    plain = json.loads((folder / "tokenizer.json").read_bytes())
    if plain["model"]["type"] != "BPE":
        raise ReleaseError(f"release.gguf: tokenizers of the type {plain['model']['type']!r} are not converted")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words_of(plain))
    added = {token["id"]: token for token in plain.get("added_tokens", ())}
    by_id = {number: token for token, number in plain["model"]["vocab"].items()}
    by_id |= {number: token["content"] for number, token in added.items()}
    kinds = gguf.TokenType
    writer.add_token_list([by_id.get(number, f"[PAD{number}]") for number in range(rows)])
    writer.add_token_types(
        [
            (kinds.CONTROL if added[number]["special"] else kinds.USER_DEFINED)
            if number in added
            else (kinds.NORMAL if number in by_id else kinds.UNUSED)
            for number in range(rows)
        ]
    )
    gguf.SpecialVocab(folder, load_merges=True, n_vocab=rows).add_to_gguf(writer, quiet=True)


def words_of(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer.json cuts a text into words. Raises `ReleaseError` where there is none."""
    given = tokenizer.get("pre_tokenizer") or {}
    steps = given.get("pretokenizers", [given]) if given.get("type") == "Sequence" else [given]
    found: list[str] = []
    for step in steps:
        if step.get("type") == "Digits" and step.get("individual_digits"):
            found.append("digits")
        elif step.get("type") == "Split":
            found.append(str((step.get("pattern") or {}).get("Regex")))
        elif step.get("type") == "ByteLevel":
            if step.get("add_prefix_space"):
                found.append("a space before the first word")
            elif step.get("use_regex", True):
                found.append("gpt2")
        else:
            found.append(str(step.get("type")))
    name = WORDS.get(tuple(found))
    if name is None or tokenizer.get("normalizer") not in (None, {"type": "NFC"}):
        raise ReleaseError(
            "release.gguf: llama.cpp has no name that is known here for how this tokenizer cuts a text into words",
            expected="as Llama 3, Qwen 2, Mistral (Tekken), SmolLM or GPT-2 do it",
            todo="leave release.gguf out; llama.cpp's own converter knows more",
        )
    return name
