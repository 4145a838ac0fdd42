"""Whether a `config.json` can be computed with: it comes from anywhere, and is read by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInputError
from .partition import layer_count, text_config

# Numbers that sizes and cuts are computed from.
_NUMBERS = (
    "hidden_size", "hidden_size_per_layer_input", "max_position_embeddings",
    "num_kv_shared_layers", "sliding_window", "vocab_size", "vocab_size_per_layer_input",
)  # fmt: skip
# Some families have one for each layer.
_PER_LAYER = (
    "global_head_dim", "head_dim", "intermediate_size", "moe_intermediate_size",
    "num_attention_heads", "num_experts", "num_global_key_value_heads", "num_key_value_heads",
    "num_local_experts",
)  # fmt: skip
_NAMES = ("layer_types", "layers_block_type", "architectures")
# Above every model that there is: what a list of layers may cost.
_MOST_LAYERS = 10_000
_MOST = 1 << 40


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a config whose numbers are none, or out of all proportion.

    Raises:
        BadInputError: naming the file, the key and what stands there.
    """
    for part in (config, text_config(config)):
        for key in (*_NUMBERS, *_PER_LAYER):
            value = part.get(key)
            values = value if isinstance(value, list) and key in _PER_LAYER else [value]
            if not all(map(_is_number, values)):
                raise BadInputError(f"{file}: {key} is {_short(value)}, not a whole number")
        for key in _NAMES:
            value = part.get(key)
            if value is not None and not (
                isinstance(value, list) and all(isinstance(one, str) for one in value)
            ):
                raise BadInputError(f"{file}: {key} is {_short(value)}, not a list of names")
    try:
        layers = layer_count(config)
    except BadInputError as error:
        raise BadInputError(f"{file}: {error}") from error
    if layers > _MOST_LAYERS:
        raise BadInputError(f"{file}: {layers} layers; the most that can be planned is 10000")


def _is_number(value: Any) -> bool:
    """Whether a value may stand for a number; null is as good as nothing."""
    if value is None:
        return True
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
