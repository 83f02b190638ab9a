"""Tiny random models of every causal type that transformers can build small."""

import inspect

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 64
MOST_PARAMETERS = 10_000_000
SMALL = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_local_experts", "num_experts", "linear_num_key_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "shared_intermediate_size"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    **dict.fromkeys(("head_dim", "rotary_dim", "linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state", "mamba_n_heads", "mamba_d_head"), 8),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "num_experts_per_tok"), 1),
    **dict.fromkeys(("mamba_expand", "expand"), 2),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "moe_intermediate_size"), 16),
    "vocab_size": VOCABULARY,
    "sliding_window": 20,
    "initializer_range": 0.3,
    "is_decoder": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SPECIAL = {
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 20},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "granite": {"logits_scaling": 4.0},
    "minicpm3": {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8},
}
UNBUILT = (
    StrictDataclassError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ImportError,
    RuntimeError,
    ArithmeticError,
)
TYPES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def build(kind: str) -> torch.nn.Module | str:
    """A model of this type in fp32, or why there is no tiny one."""
    try:
        config = _config(kind)
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if size > MOST_PARAMETERS:
            return f"{size} parameters"
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    except UNBUILT as error:
        return f"{type(error).__name__}: {error}"


def _config(kind):
    maker = CONFIG_MAPPING[kind]
    known = {name for base in maker.__mro__ for name in getattr(base, "__annotations__", {})}
    known |= set(inspect.signature(maker.__init__).parameters) | set(maker().to_dict())
    special = SPECIAL.get(kind, {})
    config = maker(**{key: value for key, value in SMALL.items() if key in known} | special)
    if (
        getattr(config, "layer_types", None)
        and kind not in SPECIAL
        and not isinstance(getattr(type(config), "layer_types", None), property)
    ):
        config.layer_types = config.layer_types[:2]
    return config
