"""The size of a checkpoint: near enough to share a host by it."""

import json

import pytest

from harness.models.instruments import instrument_path
from harness.models.size import kv_bytes, kv_groups, kv_share, tokenizer_bytes, weight_bytes
from tools.instruments.recipes import TRAINED


@pytest.mark.parametrize("name", TRAINED)
def test_counted_weights_are_near_the_stored_ones(name, tmp_path):
    """A config without files counts within a fiftieth of the parameters that its card states."""
    path = instrument_path(name)
    config = json.loads((path / "config.json").read_text())
    card = json.loads((path / "instrument.json").read_text())
    assert weight_bytes(tmp_path, config, 2) / 2 == pytest.approx(card["parameters"], rel=0.02)


def test_pickled_weights_count_where_there_are_no_others(tmp_path):
    """A checkpoint of pickles has their size; pickles beside safetensors are not its weights."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"x" * 500)
    assert weight_bytes(tmp_path, {"dtype": "bfloat16"}, 2) == 500
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    assert weight_bytes(tmp_path, {"dtype": "bfloat16"}, 2) == 1000


def test_weights_at_another_width(tmp_path):
    """A bfloat16 checkpoint takes twice its size in float32, a float32 one its size."""
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    assert weight_bytes(tmp_path, {"dtype": "bfloat16"}, 4) == 2000
    assert weight_bytes(tmp_path, {"dtype": "float32"}, 4) == 1000
    assert weight_bytes(tmp_path, {"text_config": {"dtype": "bfloat16"}}, 2) == 1000


def test_kv_cache():
    """Keys and values of all layers, at the widest heads."""
    config = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    config |= {"head_dim": 8, "global_head_dim": 16}
    assert kv_bytes(config, tokens=10, itemsize=4) == 2 * 3 * 2 * 16 * 4 * 10


def test_groups_of_layers():
    """One kind of layer is one group; else all groups have as many layers as the rarest kind."""
    uniform = {"num_hidden_layers": 30}
    assert kv_groups(uniform) == 1
    mixed = uniform | {"layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5}
    assert kv_groups(mixed) == 6


def test_the_share_of_the_cache_in_the_fullest_stage():
    """Of one kind as many as layers; of mixed kinds more: Gemma 3 270M has two of three at PP=2."""
    assert kv_share({"num_hidden_layers": 30}, (8, 8, 7, 7)) == 8 / 30
    gemma = {
        "num_hidden_layers": 18,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
    }
    assert kv_share(gemma, (18,)) == 1
    assert kv_share(gemma, (9, 9)) == 2 / 3
    assert kv_share(gemma, (4, 5, 5, 4)) == 1 / 3


def test_a_model_without_attention_heads_has_a_size(tmp_path):
    """Mamba's config names none; planning it divided by them."""
    config = {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 100}
    assert weight_bytes(tmp_path, config, 2) >= 100 * 64 * 2


def test_a_tokenizer_has_the_size_of_its_file_many_times_over(tmp_path):
    """A checkpoint without the file has none."""
    assert tokenizer_bytes(tmp_path) == 0
    (tmp_path / "tokenizer.json").write_text("x" * 1000)
    assert tokenizer_bytes(tmp_path) == 18_000
