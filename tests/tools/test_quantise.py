"""A checkpoint is quantised as vLLM reads it: its weights are still what they were, but rounded."""

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from tools.quantise import SCHEMES, quantise  # noqa: E402

PROJECTION = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def source(tmp_path):
    """A checkpoint of one projection, one norm and an embedding."""
    folder = tmp_path / "source"
    folder.mkdir()
    draw = torch.Generator().manual_seed(0)
    weights = {
        PROJECTION: torch.randn(6, 32, generator=draw, dtype=torch.float32).bfloat16(),
        "model.norm.weight": torch.ones(32),
        "model.embed_tokens.weight": torch.randn(9, 32, generator=draw),
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text('{"hidden_size": 32}')
    return folder


@pytest.mark.parametrize(("name", "largest_error"), [("w8a8", 0.5 / 127), ("fp8", 2**-4)])
def test_projections_are_rounded_to_nearest(source, tmp_path, name, largest_error):
    """Weight times scale is within a rounding step of its row's largest; the rest stays."""
    assert quantise(source, SCHEMES[name], tmp_path / "new") == 1
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "new/model.safetensors")
    scale = after.pop(f"{PROJECTION}_scale")
    assert after.keys() == before.keys()
    weight, whole = before[PROJECTION].float(), after[PROJECTION]
    assert whole.dtype == getattr(torch, SCHEMES[name].dtype)
    error = (whole.float() * scale - weight).abs() / weight.abs().amax(dim=1, keepdim=True)
    assert 0 < error.max() <= largest_error * 1.001
    for kept in before.keys() - {PROJECTION}:
        assert torch.equal(before[kept], after[kept])
    config = json.loads((tmp_path / "new/config.json").read_text())
    assert config["hidden_size"] == 32
    assert config["quantization_config"]["format"] == SCHEMES[name].file_format


def test_a_folder_that_is_there_is_left_alone(source, tmp_path):
    """Nobody's checkpoint is written over."""
    (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError):
        quantise(source, SCHEMES["w8a8"], tmp_path / "new")
