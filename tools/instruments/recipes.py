"""The shapes and training settings of the bundled instruments, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# All that are bundled; instruments learn the first of them (`Recipe.problems`).
PROBLEM_COUNT = 320
PROBLEM_SEED = 20260
SLIDING, FULL = "sliding_attention", "full_attention"

# What the trained ones share. The window is shorter than every prompt; both kinds of attention have
# their own head size, as in the real family; the context is long enough for real GSM8K questions,
# which this vocabulary spells out nearly letter by letter.
_COMMON: dict[str, object] = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 32,
    "max_position_embeddings": 4096,
    "final_logit_softcapping": 30.0,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "hidden_size_per_layer_input": 0,
}


@dataclass(frozen=True)
class Recipe:
    """The recipe of an instrument that is trained.

    Attributes:
        shape: keyword arguments of `Gemma4TextConfig`, without vocabulary sizes.
        steps: optimiser steps; `batch` of the `problems` are seen in each.
        learning_rate: peak of a warm-up and a linear fall.
        ple_gain: start value of the norm weight that scales what PLE adds in each layer.
    """

    name: str
    summary: str
    shape: Mapping[str, object] = field(repr=False)
    seed: int = 7
    steps: int = 350
    batch: int = 32
    problems: int = 128
    learning_rate: float = 2e-3
    ple_gain: float = 1.0


@dataclass(frozen=True)
class RandomRecipe:
    """The recipe of an instrument with random weights: a text decoder behind a multimodal class.

    Attributes:
        shape: keyword arguments of `Gemma4TextConfig`, without vocabulary sizes.
        vision: keyword arguments of `Gemma4VisionConfig`.
    """

    name: str
    summary: str
    shape: Mapping[str, object] = field(repr=False)
    vision: Mapping[str, object] = field(repr=False)
    seed: int = 7


_DENSE = Recipe(
    "dense",
    "8 layers, sliding and full attention, no PLE, no experts",
    _COMMON
    | {
        "num_hidden_layers": 8,
        "intermediate_size": 256,
        "layer_types": [SLIDING, SLIDING, SLIDING, FULL] * 2,
    },
)
_PLE = Recipe(
    "ple",
    "10 layers with per-layer embeddings and a KV-shared tail of two layers",
    _COMMON
    | {
        "num_hidden_layers": 10,
        "intermediate_size": 192,
        # The tail (8, 9) reads the KV of 7 and 6: at PP=4 vLLM's own layer split is illegal.
        "layer_types": [SLIDING] * 3 + [FULL] + ([SLIDING] * 2 + [FULL]) * 2,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 16,
    },
    steps=400,
    ple_gain=2.0,
)
_MOE = Recipe(
    "moe",
    "8 layers of 8 experts (2 a token) beside the MLP, K equals V on full layers",
    _COMMON
    | {
        "num_hidden_layers": 8,
        "intermediate_size": 64,
        "layer_types": [SLIDING, SLIDING, SLIDING, FULL] * 2,
        "enable_moe_block": True,
        "num_experts": 8,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
    },
)
_MM = RandomRecipe(
    "mm",
    "6 layers with PLE behind the multimodal class, as published checkpoints name it",
    # Narrow, so that the file stays small: nothing is to be learned here.
    _COMMON
    | {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 6,
        "intermediate_size": 48,
        "layer_types": [SLIDING, SLIDING, FULL] * 2,
        "hidden_size_per_layer_input": 8,
    },
    {
        "hidden_size": 32,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "num_hidden_layers": 1,
        "intermediate_size": 32,
        "patch_size": 4,
        "position_embedding_size": 64,
    },
)
TRAINED: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (_DENSE, _PLE, _MOE)}
RECIPES: Mapping[str, Recipe | RandomRecipe] = {**TRAINED, _MM.name: _MM}
