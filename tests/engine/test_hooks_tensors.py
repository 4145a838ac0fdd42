"""The tracing IntermediateTensors: every read is noted, and nothing is added."""

import pytest

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def vllm_tensors():
    """Return vLLM's own class; the import takes seconds."""
    return pytest.importorskip("vllm.sequence").IntermediateTensors


@pytest.fixture
def notes():
    return []


@pytest.fixture
def given(vllm_tensors, notes):
    """Return traced tensors with two keys."""
    import torch

    from harness.engine.hooks.tensors import traced

    content = {"hidden_states": torch.ones(4, 2), "residual": torch.zeros(4, 2)}
    return traced(vllm_tensors(content), lambda *note: notes.append(note))


def read_keys(notes):
    return {key for kind, key, _ in notes if kind == "read"}


ONE = {"hidden_states"}
BOTH = {"hidden_states", "residual"}
DOORS = {
    "item": (lambda t: t["hidden_states"], ONE),
    "tensors item": (lambda t: t.tensors["hidden_states"], ONE),
    "tensors get": (lambda t: t.tensors.get("hidden_states"), ONE),
    "tensors pop": (lambda t: t.tensors.pop("hidden_states"), ONE),
    "tensors setdefault": (lambda t: t.tensors.setdefault("hidden_states", 1), ONE),
    "items": (lambda t: list(t.items()), BOTH),
    "tensors items": (lambda t: list(t.tensors.items()), BOTH),
    "tensors values": (lambda t: list(t.tensors.values()), BOTH),
    "unpacked": (lambda t: {**t.tensors}, BOTH),
    "as arguments": (lambda t: (lambda **k: k)(**t.tensors), BOTH),
    "dict": (lambda t: dict(t.tensors), BOTH),
    "copy": (lambda t: t.tensors.copy(), BOTH),
    "union": (lambda t: t.tensors | {}, BOTH),
    "union from the right": (lambda t: {} | t.tensors, BOTH),
    "update": (lambda t: {}.update(t.tensors), BOTH),
    "equality": (lambda t: t == t, BOTH),
}  # fmt: skip
NO_READ = {
    "slice": lambda t: t[:2],
    "slice of a slice": lambda t: t[:3][:2],
    "length": len,
    "keys": lambda t: list(t.tensors),
    "membership": lambda t: "residual" in t.tensors,
    "set": lambda t: t.__setitem__("new", 1),
}


@pytest.mark.parametrize("door", DOORS)
def test_reads_through_every_door_are_noted(given, notes, door):
    """However the forward gets at a value, its key counts as read, at the reader's line."""
    way, keys = DOORS[door]
    way(given)
    assert read_keys(notes) == keys
    assert all(__file__ in place for _, _, place in notes)


@pytest.mark.parametrize("door", NO_READ)
def test_looking_is_not_reading(given, notes, door):
    """Cutting rows off, counting and asking for keys read no value."""
    NO_READ[door](given)
    assert notes == []


def test_hooks_can_look_without_reading(given, notes):
    """`dict.items` goes past the tracing: what the hooks themselves take leaves no note."""
    assert set(dict(dict.items(given.tensors))) == BOTH
    assert notes == []


def test_slice_is_traced_on(given, notes):
    """What a slice hands on is traced as the whole is, and holds the rows asked for."""
    part = given[:3]
    assert part["residual"].shape == (3, 2)
    assert read_keys(notes) == {"residual"}


def test_content_is_handed_through(given):
    """The values are the very tensors that were given: tracing copies nothing."""
    assert given["hidden_states"] is given.tensors["hidden_states"]
    assert len(given) == 2


@pytest.mark.parametrize("name", ["get", "keys", "values", "update", "pop", "shape"])
def test_missing_attribute_fails_as_it_does_untraced(vllm_tensors, given, notes, name):
    """A method that IntermediateTensors lacks raises the very same error, and is noted."""
    with pytest.raises(AttributeError) as untraced:
        getattr(vllm_tensors({}), name)
    with pytest.raises(AttributeError) as traced:
        getattr(given, name)
    assert str(traced.value) == str(untraced.value)
    assert [(kind, key) for kind, key, _ in notes] == [("missing-attribute", name)]


def test_missing_key_fails_as_it_does_untraced(given, notes):
    """A key that was not given raises KeyError and is noted as missing, not as read."""
    with pytest.raises(KeyError, match="per_layer_inputs"):
        given["per_layer_inputs"]
    assert [(kind, key) for kind, key, _ in notes] == [("missing-key", "per_layer_inputs")]


def test_it_is_an_intermediate_tensors(vllm_tensors, given):
    """Type checks of vLLM and of models see the class that they know."""
    assert isinstance(given, vllm_tensors)
    assert type(given).__name__ == "IntermediateTensors"
    assert isinstance(given.tensors, dict)


def test_what_is_beside_the_tensors_is_kept(vllm_tensors):
    """The connector's output travels with the tensors."""
    from harness.engine.hooks.tensors import traced

    assert traced(vllm_tensors({}, "output"), lambda *_: None).kv_connector_output == "output"
