"""Shrink a model's configuration to a tiny one of the same structure: no torch, no vLLM.

Everything goes by the keys that a config has, never by the name of a model family: sizes are
capped, ratios that the code asserts are kept, and lists with an entry for each layer are shortened
with the layers. `shrink.toml` names the keys.
"""

import copy
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import lcm
from pathlib import Path
from typing import Any

from ..errors import BadInputError
from .config import (
    HEAD_COUNT_KEYS,
    HIDDEN_KEYS,
    LAYER_COUNT_KEYS,
    Decoder,
    text_config,
    text_path,
    wraps_decoder,
)
from .instruments import VOCAB_SIZE
from .unplanned import encoder_of

MIN_LAYERS, MAX_LAYERS = 8, 12
_STAGES = 4  # that a tiny model is split over at most
_HIDDEN, _HEAD = 128, 32
_ENCODER_LAYERS = 2
_CORRECTIONS = Path(__file__).with_name("corrections.toml")
_KEYS = tomllib.loads(Path(__file__).with_name("shrink.toml").read_text(encoding="utf-8"))
# Largest value of a size that stands alone.
_CAPS: Mapping[str, int] = {
    **{key: group["most"] for group in _KEYS["caps"] for key in group["keys"]},
    **dict.fromkeys(_KEYS["hidden_widths"], _HIDDEN),
}
# Kernels of latent attention take published sizes alone: 512 and 64 for a key, 128 for a value.
_LATENT = {"v_head_dim"}
# Explicit sizes of one head, and what each becomes.
_HEAD_DIMS: Mapping[str, int] = {
    "head_dim": _HEAD, "global_head_dim": 2 * _HEAD, "swa_head_dim": _HEAD,
    "attention_head_dim": _HEAD,
}  # fmt: skip
# What single layers have otherwise than the rest, by their numbers; transformers keeps the larger
# heads of full attention so.
_LAYER_TABLE = "per_layer_config"
_TOKEN_IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
_MOVED = 2.0  # a multiplier that was 1.0


def shrunk_config(config: Mapping[str, Any], *, text_only: bool = False) -> dict[str, Any]:
    """Return a tiny configuration of the same structure.

    Kept: the kinds of layers and their order, experts, per-layer inputs, a KV-shared tail with a
    source for each of its kinds, tied or separate heads, grouped attention, biases, soft caps.
    Reduced: the number of layers (8 to 12), every dimension, the vocabulary (to the bundled
    tokenizer's).

    Args:
        config: the content of a `config.json`.
        text_only: of a model that wraps a decoder, take the decoder alone.

    Raises:
        BadInputError: the config has no layers or no model type, wants code of its own, is an
            encoder's, or wraps a decoder that is not asked for.
    """
    whole = ", ".join(config.get("architectures") or ()) or config.get("model_type") or "the config"
    if reason := encoder_of(config):
        raise BadInputError(f"{whole} generates no text that can be compared: {reason}")
    if wraps_decoder(config) and not text_only:
        raise BadInputError(
            f"{whole} wraps a decoder, {text_config(config).get('model_type')}: its other parts "
            "cannot be shrunk, and the decoder may run where the whole does not; ask for the "
            "decoder alone with --text-only"
        )
    if config.get("auto_map"):
        raise BadInputError(
            "the config asks for code of its own (auto_map), which is not run; "
            "give one of an architecture that transformers and vLLM have"
        )
    text = corrected(copy.deepcopy(dict(text_config(config))))
    if not text.get("model_type"):
        raise BadInputError("the config names no model_type, so no class can be built from it")
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    # Those of a multimodal config are of the whole model, not of its text part.
    architectures = None if wraps_decoder(config) else config.get("architectures")
    for key in _KEYS["dropped"]:
        text.pop(key, None)
    _shrink_layers(text, kept_layers(config), total=Decoder.of(config).layers)
    for part in (text, *(value for value in text.values() if isinstance(value, dict))):
        for key in _CAPS.keys() & part.keys() - (_LATENT if part.get("kv_lora_rank") else set()):
            part[key] = _capped(part[key], _CAPS[key])
    _shrink_heads(text)
    _shrink_mamba(text)
    _shrink_positions(text, text_config(config))
    _shrink_vocabulary(text)
    text |= moved_scalars(text)
    if architectures:
        text["architectures"] = list(architectures)
    if tied is not None:
        text["tie_word_embeddings"] = tied
    return text


def shrunk_wrapper(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose decoder is tiny; its other parts stay as they are.

    For engines that are given text prompts alone: vLLM builds no weights of the other parts then.

    Raises:
        BadInputError: as `shrunk_config` does for the decoder alone.
    """
    tiny = shrunk_config(config, text_only=True)
    if inner := text_config(config).get("architectures"):
        tiny["architectures"] = list(inner)
    whole = _with_decoder(corrected(config), text_path(config), tiny)
    return {**whole, "architectures": config.get("architectures")}


def _with_decoder(
    config: Mapping[str, Any], path: Sequence[str], decoder: Mapping[str, Any]
) -> dict[str, Any]:
    """Put a decoder at the end of a path of keys; encoders beside it get a few layers.

    Some are built in spite of text prompts. A list may name layers of theirs; those keep all.
    """
    if not path:
        return dict(decoder)
    kept = {
        key: copy.deepcopy(value) for key, value in config.items() if key not in _KEYS["dropped"]
    }
    for part in kept.values():
        if isinstance(part, dict) and not any(isinstance(item, list) for item in part.values()):
            for key in _numbers(part, (*LAYER_COUNT_KEYS, "encoder_layers")):
                part[key] = min(part[key], _ENCODER_LAYERS)
    return {**kept, path[0]: _with_decoder(config[path[0]], path[1:], decoder)}


def moved_scalars(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give every multiplier of 1.0 another value; the others stay as they are.

    A scale of attention stands for one over the root of a head, which is below 1.
    """

    def moved(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [moved(key, item) for item in value]
        if isinstance(value, bool) or value != 1:
            return value
        return 1 / 4 if key == "attention_multiplier" else _MOVED

    values = {key: moved(key, config[key]) for key in _KEYS["multipliers"] if key in config}
    return {key: value for key, value in values.items() if value != config[key]}


@lru_cache(maxsize=1)
def corrections() -> dict[str, dict[str, Any]]:
    """Read what default configs lack of published ones, by model type or architecture."""
    return tomllib.loads(_CORRECTIONS.read_text(encoding="utf-8"))


def corrected(config: Mapping[str, Any], *, is_default: bool = False) -> dict[str, Any]:
    """Add what published configs of the model type or architecture have and this one lacks.

    A default config's own values, and those of its parts, give way too: nobody has chosen them. A
    part is added to, not replaced.
    """
    whole = dict(config)
    for key, part in whole.items() if is_default else ():
        if isinstance(part, Mapping) and part.get("model_type"):
            whole[key] = corrected(part, is_default=True)
    for name in (config.get("model_type") or "", *(config.get("architectures") or ())):
        for key, value in corrections().get(name, {}).get("keys", {}).items():
            if isinstance(value, dict) and isinstance(whole.get(key), Mapping):
                whole[key] = {**whole[key], **value} if is_default else {**value, **whole[key]}
            elif is_default or whole.get(key) is None:
                whole[key] = value
    return whole


def kept_layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Choose the layers of the original that the tiny model has, ascending.

    A repeating pattern is kept in whole periods. Of any other, the first layers are kept, with
    the first of each kind. A KV-shared tail keeps its share of the layers, short enough that
    each of its kinds has a source before it.

    Raises:
        BadInputError: the config has no layers, or its layer pattern contradicts itself.
    """
    decoder = Decoder.of(config)
    total, kinds = decoder.layers, decoder.kinds
    if isinstance(pattern := text_config(config).get("hybrid_override_pattern"), str):
        kinds = tuple(pattern)
    period = _period(kinds, text_config(config))
    least = max(MIN_LAYERS, _STAGES * _deep_features(config))
    fitting = [n for n in range(least, MAX_LAYERS + 1) if n % period == 0]
    wanted = min(total, fitting[0] if fitting else MAX_LAYERS)
    shared = len(decoder.kv_sources)
    if shared:
        first = total - shared
        opening = 1 + max(kinds.index(kind) for kind in set(kinds[first:]))
        tail = max(1, min(round(wanted * shared / total), wanted - opening))
        # In step with the pattern: the tail ends as the original does.
        return (*range(wanted - tail), *range(total - tail, total))
    chosen = set(range(wanted))
    for kind in dict.fromkeys(kinds):
        if kind not in {kinds[layer] for layer in chosen}:
            # The last layer whose kind is there more than once makes room.
            held = [kinds[layer] for layer in sorted(chosen)]
            spare = max(layer for layer in chosen if held.count(kinds[layer]) > 1)
            chosen = chosen - {spare} | {kinds.index(kind)}
    return tuple(sorted(chosen))


def _deep_features(config: Mapping[str, Any]) -> int:
    """Count the layers that add features of a vision tower, which all have to be on one stage."""
    own = len(config.get("deepstack_visual_indexes") or ())
    parts = (part for part in config.values() if isinstance(part, Mapping))
    return max(own, *map(_deep_features, parts), 0)


def _period(kinds: Sequence[str], text: Mapping[str, Any]) -> int:
    """Return the shortest period of the layers, their number if they do not repeat."""
    total = len(kinds)
    period = next(
        p for p in range(1, total + 1) if all(kinds[i] == kinds[i % p] for i in range(total))
    )
    return lcm(period, *(text[key] for key in _numbers(text, _KEYS["periods"]) if text[key] > 1))


def _capped(value: Any, cap: int) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | list):
        return value
    return [_capped(item, cap) for item in value] if isinstance(value, list) else min(value, cap)


def _shrink_layers(text: dict[str, Any], layers: Sequence[int], *, total: int) -> None:
    """Shorten counts, lists with one entry a layer, and lists and tables of layer numbers."""
    for key, value in text.items():
        if key in _KEYS["index_lists"] and isinstance(value, list):
            text[key] = [layers.index(old) for old in value if old in layers]
        elif isinstance(value, list) and len(value) == total > 1:
            text[key] = [value[layer] for layer in layers]
        elif key == _LAYER_TABLE and isinstance(value, dict):
            text[key] = {
                f"{layers.index(int(old)):02}": {
                    name: 2 * _HEAD if name == "head_dim" else item for name, item in each.items()
                }
                for old, each in value.items()
                if int(old) in layers
            }
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) == total:
        text["hybrid_override_pattern"] = "".join(pattern[layer] for layer in layers)
    for key in LAYER_COUNT_KEYS:
        if key in text:
            text[key] = len(layers)
    if text.get("num_kv_shared_layers"):
        first = total - int(text["num_kv_shared_layers"])
        text["num_kv_shared_layers"] = sum(layer >= first for layer in layers)
    if "num_nextn_predict_layers" in text:
        text["num_nextn_predict_layers"] = 0


def _numbers(text: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """List those of the keys that hold a whole number."""
    return [key for key in keys if isinstance(text.get(key), int)]


def _head_size(text: Mapping[str, Any]) -> int:
    hidden, heads = _numbers(text, HIDDEN_KEYS), _numbers(text, HEAD_COUNT_KEYS)
    size = text.get("head_dim") or 0
    return size or (text[hidden[0]] // max(1, text[heads[0]]) if hidden and heads else 0)


def _shrink_heads(text: dict[str, Any]) -> None:
    """Reduce hidden size and heads; grouped attention stays grouped, multi-query one head."""
    old_head = _head_size(text)
    old_heads = next((text[key] for key in _numbers(text, HEAD_COUNT_KEYS)), None)
    heads = min(old_heads or 4, 4)
    for key in _numbers(text, HIDDEN_KEYS):
        text[key] = min(text[key], _HIDDEN)
    for key in _numbers(text, HEAD_COUNT_KEYS):
        text[key] = heads
    for key in _KEYS["kv_counts"] if old_heads else ():
        if key in text and text[key] is None:
            text[key] = old_heads  # what it means: a key-value head for each
    for key in _numbers(text, _KEYS["kv_counts"]) if old_heads else ():
        same = text[key] == old_heads
        text[key] = heads if same else 1 if text[key] == 1 else max(1, heads // 2)
    # Fewer key-value heads on some layers stay fewer.
    for key in _numbers(text, ["num_global_key_value_heads"]):
        text[key] = min(text[key], 1)
    for key in _numbers(text, _HEAD_DIMS):
        text[key] = min(text[key], _HEAD_DIMS[key])
    if "head_dim" in text and not text["head_dim"] and "hidden_size" in text:
        text["head_dim"] = text["hidden_size"] // heads
    if text.get("qk_head_dim") and text.get("qk_rope_head_dim"):
        # Latent attention: a query has a rotated and a plain part.
        text["qk_head_dim"] = text["qk_rope_head_dim"] + text["qk_nope_head_dim"]
        if "head_dim" in text:
            text["head_dim"] = text["qk_rope_head_dim"]
    if text.get("query_pre_attn_scalar") == old_head and old_head:
        text["query_pre_attn_scalar"] = text.get("head_dim") or text["hidden_size"] // heads


def _shrink_mamba(text: dict[str, Any]) -> None:
    """Keep what state-space layers assert: heads times their size is the inner width."""
    for heads, size, inner in (
        ("mamba_n_heads", "mamba_d_head", "mamba_d_ssm"),
        ("mamba_num_heads", "mamba_head_dim", None),
    ):
        if not isinstance(text.get(heads), int):
            continue
        width = int(text.get("hidden_size", _HIDDEN) * (text.get("mamba_expand") or 1))
        if inner and text.get(inner) is not None:
            text[inner] = width = min(text[inner], _HIDDEN)
        text[size] = _HEAD
        text[heads] = width // _HEAD


def _shrink_positions(text: dict[str, Any], original: Mapping[str, Any]) -> None:
    """Scale the lengths that rotary embeddings remember; shorten lists of their factors."""
    before, after = original.get("max_position_embeddings"), text.get("max_position_embeddings")
    ratio = after / before if before and after else 1.0
    old_head, new_head = _head_size(original), _head_size(text)

    def shrink(settings: dict[str, Any]) -> None:
        for key, value in settings.items():
            if isinstance(value, dict):
                shrink(value)
            elif key == "original_max_position_embeddings" and value:
                settings[key] = max(64, int(value * ratio))
            elif key == "mrope_section" and old_head:
                part = [item * new_head // old_head for item in value]
                settings[key] = [new_head // 2 - sum(part[1:]), *part[1:]]
            elif key in ("short_factor", "long_factor") and old_head:
                settings[key] = value[: max(1, len(value) * new_head // old_head)]

    shrink(text)


def _shrink_vocabulary(text: dict[str, Any]) -> None:
    """Use the bundled tokenizer's vocabulary and its special tokens."""
    for key in list(text):
        if key in ("vocab_size", "vocab_size_per_layer_input", "padded_vocab_size"):
            text[key] = VOCAB_SIZE
        elif key.endswith(("_token_id", "_token_index")):
            del text[key]
    text |= _TOKEN_IDS
