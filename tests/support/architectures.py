"""Tiny random models of every causal type that transformers can build small."""

import inspect

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 64
LAYERS = 2
MOST_PARAMETERS = 7_000_000
SMALL = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("emb_dim", "out_hidden_size", "vision_output_dim", "projector_input_dim"), 32),
    **dict.fromkeys(("projector_output_dim", "rnn_dim", "backbone_hidden_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("depth", "num_global_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_local_experts", "num_experts", "linear_num_key_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "shared_intermediate_size", "intermediate_size_mlp"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    **dict.fromkeys(("head_dim", "rotary_dim", "linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state", "mamba_n_heads", "mamba_d_head", "mamba_headdim"), 8),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "num_experts_per_tok", "n_group", "topk_group"), 1),
    **dict.fromkeys(("mamba_expand", "expand"), 2),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "moe_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "pronunciation_embed_dim", "shape_embed_dim"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("n_routed_experts", "zero_expert_num", "index_n_heads"), 4),
    **dict.fromkeys(("image_size", "pronunciation_vocab_size", "shape_vocab_size", "vocab_size_per_layer_input"), 64),
    **dict.fromkeys(("base_channels", "codebook_size"), 32),
    "hidden_size_per_layer_input": 8,
    "hidden_size_global": 32,
    "moe_topk": 2,
    "vocab_size": VOCABULARY,
    "sliding_window": 20,
    "initializer_range": 0.3,
    "is_decoder": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEXT = {
    **dict.fromkeys(("hidden_size", "intermediate_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "num_key_value_heads"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "d_model", "d_ff"), VOCABULARY),
    **dict.fromkeys(("head_dim", "hidden_size_per_layer_input", "d_kv"), 8),
    "global_head_dim": 8,
}
SPECIAL = {
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 20},
    "kimi_linear": {"linear_attn_config": {"head_dim": 8, "num_heads": 4, "full_attn_layers": [2], "kda_layers": [1]}},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "granite": {"logits_scaling": 4.0},
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 50, "encoder_hash_byte_group_size": [3]},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
        },
        "logit_scale": 0.5,
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 2, "moe_top_k": 1},
    },
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 1},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.0, 0.0],
        "intermediate_size": [48, 48],
    },
    "gemma4": {"vision_config": None, "audio_config": None},
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text",
            **TEXT,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        }
    },
    "gemma4_unified": {"vision_config": None, "audio_config": None},
    "gemma4_unified_assistant": {"text_config": {"model_type": "gemma4_unified_text", **TEXT}},
    "got_ocr2": {"text_config": {"model_type": "qwen2", **TEXT}},
    "musicgen": {"text_encoder": {"model_type": "t5", **TEXT}, "audio_encoder": {"model_type": "encodec"}},
    "musicgen_melody": {"text_encoder": {"model_type": "t5", **TEXT}, "audio_encoder": {"model_type": "encodec"}},
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "lsh"],
        "attention_head_size": 8,
        "feed_forward_size": 48,
        "num_buckets": 4,
    },
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "xlm": {"causal": True, "init_std": 0.3, "embed_init_std": 0.3},
    "zamba": {
        "num_hidden_layers": 5,
        "layers_block_type": ["linear_attention", "linear_attention", "hybrid", "linear_attention", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_dt_rank": 8,
        "use_mamba_kernels": False,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"],
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "use_mamba_kernels": False,
        "num_key_value_heads": 4,
        "num_query_groups": 4,
        "mamba_ngroups": 1,
    },
}
UNBUILDABLE = {
    "gemma3n": "timm",  # its vision tower needs it; gemma3n_text is the same language model
    "musicgen": "has no attribute 'dropout'",  # transformers makes no causal model of its whole configuration
    "musicgen_melody": "has no attribute 'dropout'",  # nor of this one; both predict sound from text, not text
}
"""Types of which there is no tiny model, with a part of what transformers says."""
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
        config = _config(CONFIG_MAPPING[kind])
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if size > MOST_PARAMETERS:
            return f"{size} parameters"
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    except UNBUILT as error:
        return f"{type(error).__name__}: {error}"


def _config(maker):
    """A small configuration of this class, with small ones of its parts."""
    kind = maker.model_type
    special = SPECIAL.get(kind, {})
    parts = {
        name: _config(part)
        for name, part in getattr(maker, "sub_configs", {}).items()
        if hasattr(part, "to_dict") and name not in special
    }
    known = {name for base in maker.__mro__ for name in getattr(base, "__annotations__", {})}
    known |= set(inspect.signature(maker.__init__).parameters)
    if "kv_lora_rank" in known:
        special = {"num_key_value_heads": SMALL["num_attention_heads"], **special}  # latent attention has no groups
    config = maker(**{key: value for key, value in SMALL.items() if key in known} | parts | special)
    layers = getattr(config, "layer_types", None)
    if layers and len(layers) > LAYERS and "layer_types" not in special:
        config.layer_types = layers[:LAYERS]
    return config
