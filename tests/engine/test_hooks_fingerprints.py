"""Fingerprints of a step's tensors, taken together."""

import pytest

torch = pytest.importorskip("torch", reason="the tracer runs inside the engine, with torch")

from harness.engine.hooks import fingerprints  # noqa: E402 - needs torch
from harness.engine.hooks.digest import row_digests, row_norms, row_sketches  # noqa: E402
from harness.engine.hooks.fingerprints import FingerprintCollector  # noqa: E402
from harness.engine.packed import unpacked  # noqa: E402

ROWS = 3


def output(layer: int, *width: int) -> "torch.Tensor":
    """An output with two padded rows, of values that no other layer has."""
    generator = torch.Generator().manual_seed(layer)
    return torch.randn(ROWS + 2, *(width or (8,)), generator=generator).to(torch.bfloat16)


def by_name(prints: FingerprintCollector) -> "dict[str, dict[str, list[object]]]":
    """The fingerprints of each tensor; what was not taken of it is missing."""
    found = {}
    for group in prints.collect().on_host():
        arrays = {kind: unpacked(text) for kind, text in group.items() if kind != "of"}
        for place, name in enumerate(group["of"]):
            found[name] = {kind: values[place] for kind, values in arrays.items() if values[place:]}
    return found


def check(found: "dict[str, list[object]]", tensor: "torch.Tensor") -> None:
    """Bits must agree; sums of floats may be taken in another order."""
    assert found["digest"] == row_digests(tensor, ROWS).tolist()
    for name, wanted in {"norm": row_norms, "sketch": row_sketches}.items():
        assert torch.allclose(torch.tensor(found[name]), wanted(tensor, ROWS))


@pytest.mark.parametrize("limit", [1, 30, 1 << 22], ids=["each", "pairs", "all"])
def test_each_layer_gets_its_own(monkeypatch: pytest.MonkeyPatch, limit: int):
    """However many are reduced at a time, and whatever their widths."""
    monkeypatch.setattr(fingerprints, "_KEPT_ELEMENTS", limit)
    outputs = {"2": output(2), "3": output(3), "4": output(4, 12), "5": output(5)}
    prints = FingerprintCollector(ROWS)
    for name, tensor in outputs.items():
        prints.add(name, tensor, with_norms=True)
    found = by_name(prints)
    assert found.keys() == outputs.keys()
    for name, tensor in outputs.items():
        check(found[name], tensor)


def test_what_crosses_a_boundary_is_told_apart_by_its_bits_only():
    """Among layers of its shape, before and after them, and of a shape of its own."""
    tensors = {"first": output(1), "ple": output(2, 3, 5), "layer": output(3), "last": output(4)}
    prints = FingerprintCollector(ROWS)
    for name, tensor in tensors.items():
        prints.add(name, tensor, with_norms=name == "layer")
    found = by_name(prints)
    check(found.pop("layer"), tensors["layer"])
    assert found == {
        name: {"digest": row_digests(tensors[name], ROWS).tolist()}
        for name in ("first", "ple", "last")
    }


def test_what_is_overwritten_later_is_seen_as_it_was():
    """A fused norm writes into the residual of the layer before it."""
    tensor = output(0)
    before = tensor.clone()
    prints = FingerprintCollector(ROWS)
    prints.add("layer", tensor, with_norms=True)
    tensor.zero_()
    check(by_name(prints)["layer"], before)


def test_a_tuple_is_seen_in_each_of_its_parts():
    """A layer that gives (hidden states, residual): a bit of either changes its digest."""
    hidden, residual = output(0), output(1).float()

    def digest(*parts: "torch.Tensor") -> list[object]:
        prints = FingerprintCollector(ROWS)
        prints.add("layer", parts)
        return by_name(prints)["layer"]["digest"]

    assert digest(hidden, residual) == digest(hidden, residual)
    assert digest(hidden, residual) != digest(residual, hidden)
    for place, part in enumerate((hidden, residual)):
        changed = part.clone()
        changed[1, 0] += 1
        parts = [hidden, residual]
        parts[place] = changed
        same = zip(digest(hidden, residual), digest(*parts), strict=True)
        assert [a == b for a, b in same] == [True, False, True]


def test_rows_of_a_batch_of_one_are_rows():
    """The Transformers backend gives [1, tokens, width]; what has fewer tokens leaves nothing."""
    prints = FingerprintCollector(ROWS)
    prints.add("plain", output(0), with_norms=True)
    prints.add("batch", output(0)[None], with_norms=True)
    prints.add("short", output(0)[None, : ROWS - 1])
    found = by_name(prints)
    assert found.keys() == {"plain", "batch"}
    check(found["batch"], output(0))


def test_what_has_no_row_for_each_token_leaves_nothing():
    """A scalar, None, or fewer rows than were scheduled."""
    prints = FingerprintCollector(ROWS)
    for number, nothing in enumerate((None, (), torch.tensor(1.0), torch.zeros(ROWS - 1, 4))):
        prints.add(str(number), nothing)
    assert by_name(prints) == {}
