"""Tiny configurations of known families: data alone, so that a shrunk model needs no config file.

The numbers are our own. What they keep in common: heads of 32 (a size that every attention backend
of vLLM has), a window that the probes cross, the vocabulary of the bundled tokenizer, and enough
layers that four ranks hold more than one kind each.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..errors import BadInputError
from .instruments.recipes import FULL, SLIDING, VOCAB_SIZE

_TOKENS: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
_COMMON: dict[str, Any] = {
    **_TOKENS,
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
_GEMMA4: dict[str, Any] = {
    "architectures": ["Gemma4ForCausalLM"],
    "model_type": "gemma4_text",
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 32,
    "layer_types": [SLIDING, SLIDING, SLIDING, FULL] * 2,
    "final_logit_softcapping": 30.0,
    "hidden_size_per_layer_input": 0,
    "tie_word_embeddings": True,
}

# The first entry that has an architecture or a model type stands for it.
_TINY: dict[str, dict[str, Any]] = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": 32,
        "hidden_act": "silu",
        "rope_parameters": _ROPE,
    },
    "mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "head_dim": 32,
        "sliding_window": 32,
        "rope_parameters": _ROPE,
    },
    "mixtral": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "head_dim": 32,
        "sliding_window": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_parameters": _ROPE,
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rope_parameters": _ROPE,
        # Tied: the last rank builds the embedding a second time.
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "head_dim": 32,
        "rope_parameters": _ROPE,
        "tie_word_embeddings": True,
    },
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        # One dense layer, as a config may name them.
        "mlp_only_layers": [0],
        "rope_parameters": _ROPE,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "num_hidden_layers": 12,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 32,
        "layer_types": [*[SLIDING] * 5, FULL] * 2,
        "tie_word_embeddings": True,
    },
    "falcon_h1": {
        "architectures": ["FalconH1ForCausalLM"],
        "model_type": "falcon_h1",
        "head_dim": 32,
        "mamba_d_ssm": 128,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 16,
        "mamba_n_groups": 1,
        "mamba_d_conv": 4,
        "mamba_expand": 1,
        "mamba_chunk_size": 32,
        "mamba_rms_norm": True,
        "rope_parameters": _ROPE,
    },
    "ernie4_5_moe": {
        "architectures": ["Ernie4_5_MoeForCausalLM"],
        "model_type": "ernie4_5_moe",
        "head_dim": 32,
        "moe_num_experts": 8,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_intermediate_size": 64,
        "rope_parameters": _ROPE,
        # As the published ones are.
        "tie_word_embeddings": True,
    },
    # Attention alone, as the small dense ones of the family have it: runs without kernels for
    # state-space layers.
    "granitemoehybrid": {
        "architectures": ["GraniteMoeHybridForCausalLM"],
        "model_type": "granitemoehybrid",
        "layer_types": ["attention"] * 8,
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "shared_intermediate_size": 64,
        "position_embedding_type": "rope",
        "attention_multiplier": 0.17,
        "mamba_expand": 1,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 16,
        "mamba_chunk_size": 32,
        "rope_parameters": _ROPE,
        "tie_word_embeddings": True,
    },
    "gemma4": {
        **_GEMMA4,
        "num_hidden_layers": 10,
        # The tail (8, 9) reads the KV of 7 and 6: at PP=4 vLLM's own cut is illegal.
        "layer_types": [SLIDING] * 3 + [FULL] + ([SLIDING] * 2 + [FULL]) * 2,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    },
    "gemma4_dense": _GEMMA4,
    "gemma4_moe": {
        **_GEMMA4,
        "intermediate_size": 64,
        "enable_moe_block": True,
        "num_experts": 8,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
    },
}
TINY: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: MappingProxyType(_COMMON | shape) for name, shape in _TINY.items()}
)


def tiny_names() -> tuple[str, ...]:
    """Return the short names of the families that have a default configuration."""
    return tuple(TINY)


def default_config(architecture: str) -> dict[str, Any]:
    """Return a tiny configuration, ready for `shrink`.

    Args:
        architecture: vLLM's architecture (``LlamaForCausalLM``), transformers' model type
            (``gemma3_text``) or a short name from `tiny_names`.

    Raises:
        BadInputError: none is known by that name; the message lists the known ones.

    """
    for name, config in TINY.items():
        if architecture in (name, config["model_type"], *config["architectures"]):
            return copy.deepcopy(dict(config))
    known = sorted({config["architectures"][0] for config in TINY.values()})
    raise BadInputError(
        f"no default configuration for {architecture!r}; there are {', '.join(known)} "
        f"(short: {', '.join(TINY)}); give a config.json or a hub id for any other"
    )
