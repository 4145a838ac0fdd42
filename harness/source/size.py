"""How large a checkpoint is, from its files and its config alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .partition import layer_count, text_config

_STORED_BYTES = {"float32": 4, "float": 4, "float64": 8}


def weight_bytes(path: Path, config: Mapping[str, Any], itemsize: int) -> int:
    """Return the bytes of a model's weights once loaded at `itemsize` bytes an element.

    A shape has a config and no files: what its matrices have is counted then.
    """
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    text = text_config(config)
    if not stored:
        return _elements(config, text) * itemsize
    name = str(text.get("dtype") or text.get("torch_dtype") or "")
    return stored * itemsize // _STORED_BYTES.get(name, 2)


def _elements(config: Mapping[str, Any], text: Mapping[str, Any]) -> int:
    """Return the elements of embeddings, attention, MLP, experts and per-layer embeddings."""

    def size(name: str) -> int:
        return int(text.get(name) or 0)

    hidden, layers = size("hidden_size"), layer_count(config)
    per_layer = 4 * hidden * hidden + 3 * hidden * size("intermediate_size")
    experts = size("num_experts") or size("num_local_experts")
    per_layer += 3 * hidden * experts * size("moe_intermediate_size")
    per_layer += size("vocab_size_per_layer_input") * size("hidden_size_per_layer_input")
    return size("vocab_size") * hidden + layers * per_layer


def kv_bytes(config: Mapping[str, Any], tokens: int, itemsize: int) -> int:
    """Return the bytes of a KV cache for `tokens` tokens, at most: every layer with its own."""
    text = text_config(config)
    heads = int(text.get("num_attention_heads") or 1)
    kv_heads = max(
        int(text.get("num_key_value_heads") or heads),
        int(text.get("num_global_key_value_heads") or 0),
    )
    width = max(
        int(text.get("head_dim") or int(text.get("hidden_size") or 0) // heads),
        int(text.get("global_head_dim") or 0),
    )
    return 2 * layer_count(config) * kv_heads * width * itemsize * tokens
