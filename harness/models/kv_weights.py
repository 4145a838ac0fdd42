"""Weights of layers that share a key-value cache: no engine computes with them, vLLM asks for them.

transformers neither has nor saves them; published checkpoints carry them, and vLLM refuses one
without `k_norm`.
"""

from typing import Any

from .config import Config, Decoder


def add_shared_weights(tensors: dict[str, Any], config: Config) -> None:
    """Give each layer that shares a KV cache copies of its source's key and value weights."""
    for layer, source in Decoder.of(config).kv_sources.items():
        for name in list(tensors):
            head, mark, part = name.partition(f".layers.{source}.self_attn.")
            if mark and part.startswith(("k_", "v_")):
                shared = f"{head}.layers.{layer}.self_attn.{part}"
                tensors.setdefault(shared, tensors[name].clone())
