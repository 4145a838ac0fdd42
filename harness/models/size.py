"""The size of a model: the weights of each layer, of a checkpoint once loaded, of its KV cache."""

from pathlib import Path

from .config import Config, Decoder, text_config

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_STORED_BYTES = {"float32": 4, "float": 4, "float64": 8}
# A config with one of these has layers whose weights are not counted here.
_UNCOUNTED = (
    "kv_lora_rank", "mamba_d_state", "ssm_cfg", "linear_num_key_heads", "conv_L_cache",
    "first_k_dense_replace", "n_shared_experts", "shared_expert_intermediate_size",
    "altup_num_inputs", "laurel_rank", "layers_block_type", "hybrid_override_pattern",
    "interleave_moe_layer_step", "parallel_attn", "block_configs",
)  # fmt: skip
_COUNTED_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
# Families with another activation mostly have an MLP without a gate.
_GATED_ACTIVATIONS = ("silu", "swiglu")
_PER_LAYER = (
    "intermediate_size", "moe_intermediate_size", "num_attention_heads", "num_key_value_heads",
    "num_global_key_value_heads", "head_dim", "global_head_dim", "num_experts",
)  # fmt: skip


def layer_parameters(config: Config) -> tuple[int, ...] | None:
    """Count the weights in each layer's linear maps; None where the config does not tell.

    Attention, MLP, experts with their router, and per-layer-input maps are counted. Norms,
    biases and scalars, under a thousandth together, are not.
    """
    decoder, text = Decoder.of(config), text_config(config)
    if (
        any(text.get(key) for key in _UNCOUNTED)
        or any(isinstance(text.get(key), list) for key in _PER_LAYER)
        or not (decoder.hidden_size and decoder.intermediate_size and decoder.num_attention_heads)
        or not ("hidden_activation" in text or text.get("hidden_act") in _GATED_ACTIVATIONS)
        or set(decoder.kinds) - _COUNTED_KINDS
    ):
        return None
    ple = 2 * decoder.hidden_size * decoder.hidden_size_per_layer_input
    return tuple(
        _attention(decoder, text, kind) + _feed_forward(decoder, text, layer) + ple
        for layer, kind in enumerate(decoder.kinds)
    )


def weight_bytes(path: Path, config: Config, itemsize: int) -> int:
    """Compute the bytes of a model's weights once loaded at `itemsize` bytes an element.

    A shape has a config and no files: its matrices are counted.
    """
    for suffix in (".safetensors", *PICKLE_SUFFIXES):
        if stored := sum(file.stat().st_size for file in path.glob(f"*{suffix}")):
            text = text_config(config)
            name = str(text.get("dtype") or text.get("torch_dtype") or "")
            return stored * itemsize // _STORED_BYTES.get(name, 2)
    decoder = Decoder.of(config)
    ple = decoder.layers * decoder.hidden_size_per_layer_input * decoder.vocab_size_per_layer_input
    embeddings = decoder.vocab_size * decoder.hidden_size + ple
    return (embeddings + sum(layer_parameters(config) or ())) * itemsize


def kv_bytes(config: Config, tokens: int, itemsize: int) -> int:
    """Compute the bytes of a KV cache for `tokens` tokens, at most: each layer with its own."""
    decoder = Decoder.of(config)
    heads = decoder.num_attention_heads or 1
    kv_heads = max(decoder.num_key_value_heads or heads, decoder.num_global_key_value_heads)
    width = max(decoder.head_dim or decoder.hidden_size // heads, decoder.global_head_dim)
    return 2 * decoder.layers * kv_heads * width * itemsize * tokens


def _attention(decoder: Decoder, text: Config, kind: str) -> int:
    """Count query, key, value and output maps; KV-shared layers carry unused key and value maps."""
    heads = decoder.num_attention_heads
    kv_heads = decoder.num_key_value_heads or heads
    head = decoder.head_dim or decoder.hidden_size // heads
    maps = 2 * (heads + kv_heads)
    if kind == "full_attention":
        head = decoder.global_head_dim or head
        if text.get("attention_k_eq_v"):
            # One map serves as key and value in the checkpoint.
            maps = 2 * heads + (decoder.num_global_key_value_heads or kv_heads)
    return decoder.hidden_size * head * maps


def _feed_forward(decoder: Decoder, text: Config, layer: int) -> int:
    """Count a gated MLP, experts, or both side by side."""
    hidden, width = decoder.hidden_size, decoder.intermediate_size
    if layer in decoder.kv_sources and text.get("use_double_wide_mlp"):
        width *= 2
    dense = 3 * hidden * width
    if not decoder.num_experts:
        return dense
    experts = decoder.num_experts * hidden * (3 * (decoder.moe_intermediate_size or width) + 1)
    if "enable_moe_block" in text:
        return dense + experts if text["enable_moe_block"] else dense
    every = decoder.decoder_sparse_step or 1
    has_experts = layer not in decoder.mlp_only_layers and (layer + 1) % every == 0
    return experts if has_experts else dense
