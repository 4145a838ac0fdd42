"""Fingerprints of a step's layers, taken together."""

import pytest

torch = pytest.importorskip("torch", reason="the tracer runs inside the engine, with torch")

from harness.capture.hooks import layers  # noqa: E402 - needs torch
from harness.capture.hooks.digest import row_digests, row_norms, row_sketches  # noqa: E402
from harness.capture.hooks.layers import LayerPrints  # noqa: E402

ROWS = 3


def output(layer: int, width: int = 8) -> "torch.Tensor":
    """An output with two padded rows, of values that no other layer has."""
    generator = torch.Generator().manual_seed(layer)
    return torch.randn(ROWS + 2, width, generator=generator).to(torch.bfloat16)


def expected(tensor: "torch.Tensor") -> dict[str, list[object]]:
    """The fingerprints of one layer by itself."""
    return {
        "digest": row_digests(tensor, ROWS).tolist(),
        "norm": row_norms(tensor, ROWS).tolist(),
        "sketch": row_sketches(tensor, ROWS).tolist(),
    }


def by_layer(prints: LayerPrints) -> "dict[int, dict[str, torch.Tensor]]":
    """The fingerprints by layer."""
    found = {}
    for group in prints.take():
        indices = group.pop("indices")
        for place, index in enumerate(indices):
            found[index] = {name: values[place] for name, values in group.items()}
    return found


def check(found: "dict[str, torch.Tensor]", tensor: "torch.Tensor") -> None:
    """Bits must agree; sums of floats may be taken in another order."""
    wanted = expected(tensor)
    assert found["digest"].tolist() == wanted["digest"]
    for name in ("norm", "sketch"):
        assert torch.allclose(found[name], torch.tensor(wanted[name]))


@pytest.mark.parametrize("limit", [1, 30, 1 << 22], ids=["each", "pairs", "all"])
def test_each_layer_gets_its_own(monkeypatch: pytest.MonkeyPatch, limit: int):
    """However many are reduced at a time, and whatever their widths."""
    monkeypatch.setattr(layers, "_KEPT_ELEMENTS", limit)
    outputs = {2: output(2), 3: output(3), 4: output(4, width=12), 5: output(5)}
    prints = LayerPrints(ROWS)
    for index, tensor in outputs.items():
        prints.add(index, tensor)
    found = by_layer(prints)
    assert list(found) == [2, 3, 4, 5]
    for index, tensor in outputs.items():
        check(found[index], tensor)


def test_what_is_overwritten_later_is_seen_as_it_was():
    """A fused norm writes into the residual of the layer before it."""
    tensor = output(0)
    before = tensor.clone()
    prints = LayerPrints(ROWS)
    prints.add(0, tensor)
    tensor.zero_()
    check(by_layer(prints)[0], before)


def test_a_tuple_is_seen_in_each_of_its_parts():
    """A layer that gives (hidden states, residual): a bit of either changes its digest."""
    hidden, residual = output(0), output(1)

    def digest(*parts: "torch.Tensor") -> list[object]:
        prints = LayerPrints(ROWS)
        prints.add(0, parts)
        return by_layer(prints)[0]["digest"].tolist()

    assert digest(hidden, residual) == digest(hidden, residual)
    assert digest(hidden, residual) != digest(residual, hidden)
    changed = residual.clone()
    changed[1, 0] += 1
    left, right = digest(hidden, residual), digest(hidden, changed)
    assert [a == b for a, b in zip(left, right, strict=True)] == [True, False, True]


def test_what_has_no_row_for_each_token_leaves_nothing():
    """A scalar, None, or fewer rows than were scheduled."""
    prints = LayerPrints(ROWS)
    for index, nothing in enumerate((None, (), torch.tensor(1.0), torch.zeros(ROWS - 1, 4))):
        prints.add(index, nothing)
    assert prints.take() == []
