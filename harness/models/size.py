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
    hidden, layers = _number(text, "hidden_size"), layer_count(config)
    per_layer = 4 * hidden * hidden + 3 * hidden * _number(text, "intermediate_size")
    experts = _number(text, "num_experts") or _number(text, "num_local_experts")
    per_layer += 3 * hidden * experts * _number(text, "moe_intermediate_size")
    per_layer += _number(text, "vocab_size_per_layer_input") * _number(
        text, "hidden_size_per_layer_input"
    )
    return _number(text, "vocab_size") * hidden + layers * per_layer


def kv_bytes(config: Mapping[str, Any], tokens: int, itemsize: int) -> int:
    """Return the bytes of a KV cache for `tokens` tokens, at most: every layer with its own."""
    text = text_config(config)
    heads = _number(text, "num_attention_heads") or 1
    kv_heads = max(
        _number(text, "num_key_value_heads") or heads, _number(text, "num_global_key_value_heads")
    )
    width = max(
        _number(text, "head_dim") or _number(text, "hidden_size") // heads,
        _number(text, "global_head_dim"),
    )
    return 2 * layer_count(config) * kv_heads * width * itemsize * tokens


def _number(text: Mapping[str, Any], name: str) -> int:
    """Return a number of the config, 0 if there is none; of one for each layer, the largest."""
    value = text.get(name) or 0
    return max(int(one or 0) for one in value) if isinstance(value, list) else int(value)
