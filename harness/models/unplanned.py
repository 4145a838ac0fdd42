"""Models whose layers the planner does not know how to split, by the keys of their configs."""

import re
from collections.abc import Mapping
from typing import Any

from .config import Config, text_config

# Keys of layers that read another layer's key-value cache: `use_cla` of Hunyuan (every
# `cla_share_factor` layers one has a cache), `yoco_*` of Llama's drafts, and names alike. The one
# that the planner knows is `num_kv_shared_layers`.
_SHARES_KV = re.compile(
    r"(?:^|_)(?:cla|yoco|cross_layer_attention|cross_decoder)(?:_|$)|"
    r"(?:^|_)(?:kv|kv_cache|key_value)_(?:share|shared|sharing|reuse|reused)(?:_|$)|"
    r"(?:^|_)(?:share|shared|sharing|reuse|reused)_(?:kv|key_value)(?:_|$)"
)
_KNOWN = "num_kv_shared_layers"
# The sizes of a recurrent state; a model that has one and no attention has no key-value cache.
_STATE_SIZES = ("state_size", "ssm_state_size", "ssm_cfg", "mamba_d_state", "d_state")
_ATTENTION_HEADS = ("num_attention_heads", "n_head", "n_heads")

# BERT and its heirs embed the segments of a text pair, or pool for a classifier; no decoder does.
_ENCODER = ("type_vocab_size", "classifier_pooling")


def unknown_split(config: Config) -> str | None:
    """Say what the planner does not know of a model's layers; None if it can plan their split."""
    encoder = encoder_of(config)
    if encoder is not None:
        return f"{encoder}: there are no decoder layers alone to split"
    text = text_config(config)
    if sharing := _sharing(text):
        return (
            f"its layers share KV caches ({', '.join(sharing)}), by a rule that is not known "
            "here: a layer split that parts a layer from its cache cannot be told from a legal one"
        )
    states = [key for key in _STATE_SIZES if text.get(key)]
    if states and not any(text.get(key) for key in _ATTENTION_HEADS):
        return (
            f"it is a state-space model without KV caches ({states[0]}, no attention heads): "
            "which layers may be parted is not known here"
        )
    return None


def encoder_of(config: Config) -> str | None:
    """Say by which key a config is an encoder's, or an encoder's with a decoder; None if not."""
    text = text_config(config)
    if text.get("is_encoder_decoder"):
        return "it has an encoder beside its decoder (is_encoder_decoder)"
    heads = [name for name in config.get("architectures") or () if name.endswith("ForMaskedLM")]
    if heads:
        return f"it is an encoder ({heads[0]})"
    keys = [key for key in _ENCODER if text.get(key)]
    return f"it is an encoder ({keys[0]})" if keys and not text.get("is_decoder") else None


def _sharing(text: Mapping[str, Any]) -> list[str]:
    """Name the keys that share KV caches in a way that the planner does not know."""
    keys = [key for key, value in text.items() if _SHARES_KV.search(key) and value]
    if "use_cla" in text:  # a factor without the switch, or of one layer, shares nothing
        factor = text.get("cla_share_factor", 1)
        if not text["use_cla"] or factor in (0, 1):
            keys = [key for key in keys if "cla" not in key.split("_")]
    elif keys == ["cla_share_factor"]:
        keys = []
    return [f"{key}={text[key]!r}" for key in keys if key != _KNOWN]
