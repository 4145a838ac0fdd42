"""Models named by shape alone: a config without a checkpoint; the engine makes the weights.

`shape:E4B` is a published model's decoder at full size, `shape:E4B:layers=12:hidden=256` the same
with other numbers. `shapes.toml` holds the shapes. `shape:FILE.json` is the config in a file, and
`shape:FOLDER` that in a folder, with the tokenizer and the processor beside it (checkpoint.py).
"""

import hashlib
import json
import tempfile
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import BadInputError
from .config import read_config

PREFIX = "shape:"
_TABLE = Path(__file__).with_name("shapes.toml")
# Numbers of which 0 means that the model has none.
_OPTIONAL = ("global_kv_heads", "experts", "top_k", "expert_width")


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))


def shape_names() -> tuple[str, ...]:
    """Return the names of the shapes."""
    return tuple(_table()["shapes"])


def read_shape(text: str) -> tuple[str, dict[str, Any]]:
    """Read `shape:NAME[:NUMBER=VALUE...]` or `shape:FILE.json|FOLDER`: name for ids, and config.

    Raises:
        BadInputError: naming the shapes, or the numbers, that there are.
    """
    name, *changes = text.removeprefix(PREFIX).split(":")
    path = Path(name).expanduser()
    if name.endswith(".json") or path.is_dir():
        return path.name.removesuffix(".json"), read_config(path)
    if name not in shape_names():
        raise BadInputError(
            f"no shape {name!r}: it is no folder, no FILE.json and none of "
            f"{', '.join(shape_names())}"
        )
    numbers = {**_table()["defaults"], **_table()["shapes"][name]}
    for change in changes:
        key, _, value = change.partition("=")
        if key not in numbers or not value.isdecimal():
            raise BadInputError(
                f"{text}: {change!r} is no change of a shape; write NUMBER=VALUE, with whole "
                f"values (0 or 1 for yes and no), of: {', '.join(_table()['numbers'])}"
            )
        numbers[key] = type(numbers[key])(int(value))
    config = _config(numbers)
    if changes:
        name += f"-{config_digest(config)[:6]}"
    if numbers["layers"] < numbers["full_every"]:
        raise BadInputError(
            f"{text}: {numbers['layers']} layers hold none that attends to everything"
        )
    return name, config


def _config(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Build the content of a `config.json`."""
    kinds, every = ("sliding_attention", "full_attention"), numbers["full_every"]
    values = {**numbers, **{name: numbers[name] or None for name in _OPTIONAL}}
    return {
        **_table()["config"],
        **{key: values[name] for name, key in _table()["numbers"].items() if key},
        "layer_types": [kinds[(i + 1) % every == 0] for i in range(numbers["layers"])],
        "vocab_size_per_layer_input": numbers["vocab"],
        "enable_moe_block": numbers["experts"] > 0,
        "use_bidirectional_attention": None,
    }


def config_digest(config: Mapping[str, Any]) -> str:
    """Compute the sha256 of a shape's `config.json`."""
    return hashlib.sha256(_config_text(config).encode()).hexdigest()


def write_config(config: Mapping[str, Any], folder: Path) -> Path:
    """Write a shape's `config.json` into a folder of its own below `folder`; return that."""
    target = folder / config_digest(config)[:16]
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target, delete=False) as partial:
        partial.write(_config_text(config))
    Path(partial.name).replace(target / "config.json")
    return target


def _config_text(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=1, sort_keys=True)
