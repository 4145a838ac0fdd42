"""How large a checkpoint is: near enough to share a host by it."""

import json

import pytest

from harness.models.instruments import instrument_names, instrument_path
from harness.models.size import _elements, kv_bytes, weight_bytes


@pytest.mark.parametrize("name", instrument_names())
def test_counted_elements_are_near_the_stored_ones(name):
    """What is counted from the config alone is within a half of what the checkpoint holds."""
    path = instrument_path(name)
    config = json.loads((path / "config.json").read_text())
    card = json.loads((path / "instrument.json").read_text())
    text = config.get("text_config", config)
    assert 0.5 < _elements(config, text) / card["parameters"] < 1.5


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
