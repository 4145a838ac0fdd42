"""Models named by shape alone: a config without a checkpoint; the engine makes the weights.

`shape:E4B` is a published model's decoder at full size, `shape:E4B:layers=12:hidden=256` the same
with other numbers. `shapes.toml` holds the shapes.
"""

import hashlib
import json
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import BadInputError

PREFIX = "shape:"
_TABLE = Path(__file__).with_name("shapes.toml")


@dataclass(frozen=True)
class Shape:
    """The numbers of a Gemma4 text decoder; `shapes.toml` says what they mean."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    full_every: int
    window: int
    head: int = 256
    global_head: int = 512
    global_kv_heads: int = 0
    kv_shared: int = 0
    double_wide: bool = False
    k_eq_v: bool = False
    ple: int = 0
    experts: int = 0
    top_k: int = 0
    expert_width: int = 0
    vocab: int = 262144

    @property
    def config(self) -> dict[str, Any]:
        """The content of the model's `config.json`."""
        kinds = ["sliding_attention", "full_attention"]
        return {
            "architectures": ["Gemma4ForCausalLM"],
            "model_type": "gemma4_text",
            "dtype": "bfloat16",
            "vocab_size": self.vocab,
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "num_global_key_value_heads": self.global_kv_heads or None,
            "head_dim": self.head,
            "global_head_dim": self.global_head,
            "attention_k_eq_v": self.k_eq_v,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "layer_types": [kinds[(i + 1) % self.full_every == 0] for i in range(self.layers)],
            "sliding_window": self.window,
            "num_kv_shared_layers": self.kv_shared,
            "use_double_wide_mlp": self.double_wide,
            "hidden_size_per_layer_input": self.ple,
            "vocab_size_per_layer_input": self.vocab,
            "enable_moe_block": self.experts > 0,
            "num_experts": self.experts or None,
            "top_k_experts": self.top_k or None,
            "moe_intermediate_size": self.expert_width or None,
            "hidden_activation": "gelu_pytorch_tanh",
            "final_logit_softcapping": 30.0,
            "rms_norm_eps": 1e-06,
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {
                    "rope_type": "proportional",
                    "rope_theta": 1000000.0,
                    "partial_rotary_factor": 0.25,
                },
            },
            "tie_word_embeddings": True,
            "use_bidirectional_attention": None,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
        }


@lru_cache(maxsize=1)
def shapes() -> dict[str, Shape]:
    """Read the shapes, by name."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: Shape(**numbers) for name, numbers in table.items()}


def read_shape(text: str) -> tuple[str, Shape]:
    """Read `shape:NAME[:NUMBER=VALUE...]`: the name for item ids, and the shape.

    Raises:
        BadInputError: naming the shapes, or the numbers, that there are.
    """
    name, *changes = text.removeprefix(PREFIX).split(":")
    if name not in shapes():
        raise BadInputError(f"no shape {name!r}; known: {', '.join(shapes())}")
    shape = shapes()[name]
    numbers: dict[str, Any] = asdict(shape)
    for change in changes:
        key, _, value = change.partition("=")
        if key not in numbers or not value.isdecimal():
            raise BadInputError(
                f"{text}: {change!r} is no change of a shape; write NUMBER=VALUE, with whole "
                f"values (0 or 1 for yes and no), of: {', '.join(numbers)}"
            )
        numbers[key] = type(numbers[key])(int(value))
    shape = Shape(**numbers)
    if changes:
        name += f"-{config_digest(shape)[:6]}"
    if shape.layers < shape.full_every:
        raise BadInputError(f"{text}: {shape.layers} layers hold none that attends to everything")
    return name, shape


def config_digest(shape: Shape) -> str:
    """Compute the sha256 of the shape's `config.json`."""
    return hashlib.sha256(_config_text(shape).encode()).hexdigest()


def write_config(shape: Shape, folder: Path) -> Path:
    """Write the shape's `config.json` into a folder of its own below `folder`; return that."""
    target = folder / config_digest(shape)[:16]
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target, delete=False) as partial:
        partial.write(_config_text(shape))
    Path(partial.name).replace(target / "config.json")
    return target


def _config_text(shape: Shape) -> str:
    return json.dumps(shape.config, indent=1, sort_keys=True)
