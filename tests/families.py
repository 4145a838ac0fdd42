"""Tiny configurations of known families: structures that the planner and the shrinker must keep.

The numbers are our own. What they keep in common: heads of 32 (a size that every attention backend
of vLLM has), a window that the probes cross, the vocabulary of the bundled tokenizer, and enough
layers that four ranks hold more than one kind each.
"""

import copy
from collections.abc import Mapping
from typing import Any

from harness.models.config import Config
from harness.models.instruments import VOCAB_SIZE, instrument_path, read_card

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_ROPE = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
_HEAD = {"head_dim": 32}


def _family(architecture: str, model_type: str, *parts: Mapping[str, Any], **keys: Any) -> Config:
    config = {"architectures": [architecture], "model_type": model_type, **_COMMON}
    for part in (*parts, keys):
        config |= part
    return config


def _gemma4(instrument: str, **keys: Any) -> Config:
    shape = read_card(instrument_path(instrument))["shape"]
    return _family("Gemma4ForCausalLM", "gemma4_text", shape, **keys)


TINY: Mapping[str, Config] = {
    "llama": _family("LlamaForCausalLM", "llama", _HEAD, _ROPE, hidden_act="silu"),
    "mistral": _family("MistralForCausalLM", "mistral", _HEAD, _ROPE, sliding_window=32),
    "mixtral": _family(
        "MixtralForCausalLM", "mixtral", _HEAD, _ROPE,
        sliding_window=None, num_local_experts=8, num_experts_per_tok=2,
    ),
    # Tied: the last rank builds the embedding a second time.
    "qwen2": _family("Qwen2ForCausalLM", "qwen2", _ROPE, tie_word_embeddings=True),
    "qwen3": _family("Qwen3ForCausalLM", "qwen3", _HEAD, _ROPE, tie_word_embeddings=True),
    "qwen3_moe": _family(
        "Qwen3MoeForCausalLM", "qwen3_moe", _HEAD, _ROPE,
        num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64, norm_topk_prob=True,
        # One dense layer, as a config may name them.
        decoder_sparse_step=1, mlp_only_layers=[0],
    ),
    "gemma3": _family(
        "Gemma3ForCausalLM", "gemma3_text", _HEAD,
        num_hidden_layers=12, query_pre_attn_scalar=32, sliding_window=32,
        layer_types=[*["sliding_attention"] * 5, "full_attention"] * 2, tie_word_embeddings=True,
    ),
    "falcon_h1": _family(
        "FalconH1ForCausalLM", "falcon_h1", _HEAD, _ROPE,
        mamba_d_ssm=128, mamba_n_heads=4, mamba_d_head=32, mamba_d_state=16,
        mamba_n_groups=1, mamba_d_conv=4, mamba_expand=1, mamba_chunk_size=32,
        mamba_rms_norm=True,
    ),
    # Tied, as the published ones are.
    "ernie4_5_moe": _family(
        "Ernie4_5_MoeForCausalLM", "ernie4_5_moe", _HEAD, _ROPE,
        moe_num_experts=8, moe_k=2, moe_num_shared_experts=1, moe_intermediate_size=64,
        tie_word_embeddings=True,
    ),
    # Attention alone, as the small dense ones of the family have it: runs without kernels for
    # state-space layers.
    "granitemoehybrid": _family(
        "GraniteMoeHybridForCausalLM", "granitemoehybrid", _ROPE,
        layer_types=["attention"] * 8, num_local_experts=0, num_experts_per_tok=0,
        shared_intermediate_size=64, position_embedding_type="rope", attention_multiplier=0.17,
        mamba_expand=1, mamba_n_heads=4, mamba_d_head=32, mamba_d_state=16,
        mamba_chunk_size=32, tie_word_embeddings=True,
    ),
    "gemma4": _gemma4("ple", vocab_size_per_layer_input=VOCAB_SIZE),
    "gemma4_dense": _gemma4("dense", intermediate_size=192),
    "gemma4_moe": _gemma4("moe"),
}  # fmt: skip


def family(name: str) -> dict[str, Any]:
    """A copy of the configuration of a family."""
    return copy.deepcopy(dict(TINY[name]))
