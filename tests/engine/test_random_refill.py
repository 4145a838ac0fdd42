"""Weights drawn in place: by name alone, and spread as the rule for their shape says."""

import pytest

torch = pytest.importorskip("torch", reason="drawing weights needs torch")

from harness.engine.random_weights import (  # noqa: E402
    EMBEDDING_STD,
    MATRIX_GAIN,
    refill,
    saved_tensors,
)


def drawn(name, start, *, is_embedding=False):
    tensor = start.clone()
    refill(name, tensor, 0, is_embedding=is_embedding)
    return tensor


def test_the_name_alone_decides():
    """Two ranks that hold a weight of one name hold the same numbers; another name has others."""
    start = torch.zeros(8, 16, dtype=torch.bfloat16)
    one = drawn("layers.3.mlp.weight", start)
    assert torch.equal(one, drawn("layers.3.mlp.weight", start + 1))
    assert not torch.equal(one, drawn("layers.4.mlp.weight", start))


def test_spreads():
    """Matrices by their inputs, embeddings by the constant, vectors and scalars around a start."""
    matrix = drawn("w", torch.zeros(512, 256))
    assert matrix.std().item() == pytest.approx(MATRIX_GAIN / 16, rel=0.02)
    experts = drawn("experts", torch.zeros(4, 256, 64))
    assert experts.std().item() == pytest.approx(MATRIX_GAIN / 8, rel=0.02)
    table = drawn("e", torch.zeros(512, 256), is_embedding=True)
    assert table.std().item() == pytest.approx(EMBEDDING_STD, rel=0.02)
    norm = drawn("norm.weight", torch.ones(4096))
    assert norm.mean().item() == pytest.approx(1.0, abs=0.02)
    assert norm.std().item() > 0.1
    scalar = drawn("layer_scalar", torch.ones(1))
    assert 0.7 <= scalar.item() <= 0.9


def test_a_bias_does_not_depend_on_what_memory_held():
    """vLLM leaves biases unset; two ranks would hold other numbers, or none."""
    garbage = torch.full((64,), float("nan"))
    bias = drawn("layers.0.mlp.bias", garbage)
    assert torch.equal(bias, drawn("layers.0.mlp.bias", torch.ones(64)))
    assert bias.std().item() > 0.1


@pytest.mark.parametrize("shape", [(64,), (32, 16)], ids=["per head", "per channel and state"])
def test_a_decay_is_negative(shape):
    """FalconH1 in vLLM 0.33.0 held NaN from position 67 on with decays of both signs."""
    decay = drawn("model.layers.0.mamba.mamba.A", torch.zeros(shape))
    assert decay.max().item() < 0
    assert decay.std().item() > 0.1


def test_what_is_not_built_is_passed_over():
    """vLLM leaves towers on the meta device where a multimodal model is served for text alone."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4, device="meta"))
    assert list(saved_tensors(model)) == ["0.weight", "0.bias"]
