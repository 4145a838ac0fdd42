"""A model's `config.json`: found, checked, and read as the numbers of its text decoder.

A config comes from anywhere. Everything goes by the keys that it has, never by the name of a
model family.
"""

import json
from collections.abc import Mapping
from functools import cached_property, reduce
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ..errors import BadInputError

Config = Mapping[str, Any]

# The names that families give to one number.
LAYER_COUNT_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
HEAD_COUNT_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_TEXT_KEYS = ("text_config", "thinker_config", "llm_config", "wrapped_model_config")
_FEED_FORWARD_KEYS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_LAYER_KIND_KEYS = ("layer_types", "layers_block_type")
# Above every model that exists: plans hold an entry for each layer.
_MOST_LAYERS = 10_000


def _largest(value: Any, check: ValidatorFunctionWrapHandler) -> int:
    """Check a number, or one for each layer as some families have them; the largest counts."""
    numbers = value if isinstance(value, list) else [value]
    return max((check(number) for number in numbers if number is not None), default=0)


_Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 40)]
_PerLayer = Annotated[_Count, WrapValidator(_largest)]


class Decoder(BaseModel):
    """The numbers of a text decoder by the names of `config.json`; 0 or empty where it has none."""

    model_config = ConfigDict(frozen=True, extra="allow")

    layers: Annotated[int, Field(strict=True, gt=0, le=_MOST_LAYERS)] = Field(
        validation_alias=AliasChoices(*LAYER_COUNT_KEYS)
    )
    layer_types: tuple[str, ...] = Field((), validation_alias=AliasChoices(*_LAYER_KIND_KEYS))
    num_kv_shared_layers: _Count = 0
    architectures: tuple[str, ...] = ()
    vocab_size: _Count = 0
    max_position_embeddings: _Count = Field(
        0, validation_alias=AliasChoices("max_position_embeddings", "n_positions")
    )
    sliding_window: _Count = 0
    hidden_size: _Count = Field(0, validation_alias=AliasChoices(*HIDDEN_KEYS))
    intermediate_size: _PerLayer = Field(0, validation_alias=AliasChoices(*_FEED_FORWARD_KEYS))
    num_attention_heads: _PerLayer = Field(0, validation_alias=AliasChoices(*HEAD_COUNT_KEYS))
    num_key_value_heads: _PerLayer = 0
    num_global_key_value_heads: _PerLayer = 0
    head_dim: _PerLayer = 0
    global_head_dim: _PerLayer = 0
    hidden_size_per_layer_input: _Count = 0
    vocab_size_per_layer_input: _Count = 0
    num_experts: _PerLayer = Field(
        0, validation_alias=AliasChoices("num_experts", "num_local_experts")
    )
    moe_intermediate_size: _PerLayer = 0

    @classmethod
    def of(cls, config: Config) -> Self:
        """Read the decoder of a config, from its nested `text_config` if it has one.

        Raises:
            BadInputError: the config has no number of layers, or a value of another type or out
                of all proportion; the message names the key.
        """
        named = {**text_config(config), "architectures": config.get("architectures")}
        named = {key: value for key, value in named.items() if value is not None}
        kinds = next((named[key] for key in _LAYER_KIND_KEYS if key in named), None)
        if isinstance(kinds, list) and not any(key in named for key in LAYER_COUNT_KEYS):
            named[LAYER_COUNT_KEYS[0]] = len(kinds)  # Nemotron-H names its layers one by one
        try:
            return cls.model_validate(named)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "missing":
                raise BadInputError(
                    "the config names no number of layers (looked for "
                    f"{', '.join(LAYER_COUNT_KEYS)}, also under text_config); is it a decoder's "
                    "config.json?"
                ) from error
            key, value = first["loc"][0], repr(first["input"])
            shown = value if len(value) <= 60 else f"{value[:60]}..."
            raise BadInputError(f"{key} is {shown}: {first['msg']}") from error

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each layer; `full_attention` where the config does not tell.

        Raises:
            BadInputError: the config lists more or fewer kinds than layers.
        """
        if self.layer_types and len(self.layer_types) != self.layers:
            raise BadInputError(
                f"layer_types names {len(self.layer_types)} layers, the config has {self.layers}"
            )
        return self.layer_types or ("full_attention",) * self.layers

    @cached_property
    def kv_sources(self) -> dict[int, int]:
        """The layer whose key-value cache each layer without a cache of its own reads.

        The last `num_kv_shared_layers` layers have no cache; each reads that of the last layer
        of its own kind before them.

        Raises:
            BadInputError: a shared layer's kind does not occur before the shared tail.
        """
        shared, first = self.num_kv_shared_layers, self.layers - self.num_kv_shared_layers
        if not shared:
            return {}
        if first <= 0:
            raise BadInputError(
                f"num_kv_shared_layers is {shared}, the model has {self.layers} layers"
            )
        if not self.layer_types:
            raise BadInputError(
                "the config shares KV caches but has no layer_types; save it again with "
                "transformers"
            )
        last_of_kind = {kind: layer for layer, kind in enumerate(self.kinds[:first])}
        missing = sorted(set(self.kinds[first:]) - last_of_kind.keys())
        if missing:
            raise BadInputError(f"no layer before the KV-shared tail is a {missing[0]}")
        return {layer: last_of_kind[self.kinds[layer]] for layer in range(first, self.layers)}


def wraps_decoder(config: Config) -> bool:
    """Tell whether the config is of more than a text decoder, which is nested in it."""
    return text_config(config) is not config


def text_config(config: Config) -> Config:
    """Return the part that describes the text decoder: the innermost nested one, or the whole."""
    return reduce(lambda part, key: part[key], text_path(config), config)


def text_path(config: Config) -> tuple[str, ...]:
    """Name the keys that lead to the text decoder's part; none where the config is the decoder's.

    One of `thinker_config` and `text_config` for a model that also speaks.
    """
    key = next((key for key in _TEXT_KEYS if isinstance(config.get(key), Mapping)), None)
    return (key, *text_path(config[key])) if key else ()


def read_config(path: Path) -> dict[str, Any]:
    """Read a `config.json`, given as the file or the folder that holds it.

    Raises:
        BadInputError: there is none, or it is not a JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise BadInputError(
            f"{path} is not a checkpoint: it has no config.json; "
            "give the folder that holds config.json, *.safetensors and the tokenizer"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{file} holds no JSON object; it is not a model's config")
    return content
