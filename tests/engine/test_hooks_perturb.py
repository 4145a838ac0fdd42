"""Changes are found by their family; known perturbations are undone bit by bit."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="perturbations run inside the engine")

from harness.engine.hooks import changes  # noqa: E402 - needs torch
from harness.engine.hooks.perturb import perturbation, weight_kinds  # noqa: E402 - needs torch
from harness.engine.hooks.scalars import scalar_kinds  # noqa: E402 - needs torch
from harness.engine.hooks.site import Site  # noqa: E402 - after the skip
from harness.engine.names import key_names  # noqa: E402 - after the skip


class Model(torch.nn.Module):
    """Two layers, tied ends, a packed matrix, and a tower that does not run."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(8, 4)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))
        self.head = torch.nn.Linear(4, 8, bias=False)
        self.head.weight = self.embed.weight
        self.tower = torch.nn.Linear(4, 4, bias=False)
        self.head.register_buffer("eps", torch.tensor(-1e-6))
        for layer in self.layers:
            torch.nn.init.zeros_(layer.bias)

    def forward(self, ids):
        hidden = self.embed(ids)
        for layer in self.layers:
            hidden = torch.nn.functional.rms_norm(layer(hidden), (4,))
        return self.head(hidden)


IDS = torch.arange(8)


@pytest.fixture
def model():
    return Model()


def site(model, stage=0, written=None, group=None):
    events = {} if written is None else written
    group = group or SimpleNamespace(rank_in_group=stage, world_size=2)
    runner = SimpleNamespace(model_config=SimpleNamespace(enforce_eager=True))
    write = lambda kind, **content: events.update({kind: content})  # noqa: E731 - as Tracer.write
    return Site(runner, model, group, {}, (), {}, write)


def test_kinds_have_no_numbers_and_tied_weights_count_once(model):
    """A kind is a name without layer numbers and its shape."""
    assert list(weight_kinds(model)) == [
        "embed.weight [8x4]",
        "layers.*.weight [4x4]",
        "layers.*.bias [4]",
        "head.eps []",
        "tower.weight [4x4]",
    ]


@pytest.mark.parametrize("kind", ["embed.weight [8x4]", "layers.*.weight [4x4]"])
def test_a_weight_moves_the_output_and_comes_back(model, kind):
    """Inside, the output differs although a norm follows; afterwards every bit is as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = model(IDS)
    with perturbation(f"weight:{kind}")(site(model)):
        moved = model(IDS)
    assert not torch.equal(plain, moved)
    assert (plain - moved).norm() / plain.norm() > 1e-2
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model(IDS), plain)


def test_a_part_that_is_not_built_is_no_kind():
    """Of a multimodal model that is served for text alone; nothing computes with it."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False))
    model.image_newline = torch.nn.Parameter(torch.empty(4, device="meta"))
    assert list(weight_kinds(model)) == ["0.weight [4x4]"]


def test_a_packed_matrix_is_reached_through_its_input(model):
    """Where a CPU build has packed the weight away, doubling inputs is doubling its columns."""
    layer = model.layers[0]
    packed = layer.weight.detach().clone()
    layer.weight = torch.nn.Parameter(torch.empty(0))

    class Method:
        def apply(self, _layer, x):
            return x @ packed.T

    layer.quant_method = Method()
    layer.forward = lambda x: layer.quant_method.apply(layer, x)
    x = torch.randn(3, 4)
    wide = packed.clone()
    wide[:, ::2] *= 2
    assert "layers.*.weight" in weight_kinds(model)
    with perturbation("weight:layers.*.weight")(site(model)):
        assert torch.allclose(layer(x), x @ wide.T)
    assert torch.equal(layer(x), x @ packed.T)


def test_what_cannot_matter_is_noted(model):
    """Parts that do not run, weights that are zero and epsilons are named with the reason."""
    written = {}
    with perturbation("none")(site(model, written=written)):
        model(IDS)
    assert written["excuses"]["kinds"] == {
        "layers.*.bias [4]": "it is zero throughout",
        "tower.weight [4x4]": "its module does not run for text",
        "head.eps []": "it is an epsilon, which keeps a formula from zero",
    }


def test_a_type_without_comparisons_is_looked_at_too(model, monkeypatch):
    """On a GPU torch has no `any` for floats of eight bits."""

    def any_of_wide_types(tensor):
        if tensor.dtype is torch.float8_e4m3fn:
            raise NotImplementedError("\"or_cuda\" not implemented for 'Float8_e4m3fn'")
        return (tensor != 0).sum() > 0

    monkeypatch.setattr(torch.Tensor, "any", any_of_wide_types)
    model.tower.weight.data = model.tower.weight.data.to(torch.float8_e4m3fn)
    written = {}
    with perturbation("none")(site(model, written=written)):
        model.tower(torch.ones(1, 4, dtype=torch.float8_e4m3fn))
    assert "layers.*.bias [4]" in written["excuses"]["kinds"]


class Group:
    """A pipeline group that keeps what it sends."""

    rank_in_group, world_size = 0, 2

    def __init__(self):
        self.sent = None

    def isend_tensor_dict(self, tensors):
        self.sent = tensors


class Quantised(torch.nn.Linear):
    """A layer in compressed-tensors as vLLM has loaded it: a scale for each channel, an offset."""

    def __init__(self, *, input_symmetric):
        super().__init__(4, 4, bias=False)
        self.weight_scale = torch.nn.Parameter(torch.ones(4, 1))
        self.azp_adj = torch.nn.Parameter(torch.ones(1, 4))
        self.scheme = SimpleNamespace(input_symmetric=input_symmetric)

    def forward(self, x):
        return torch.nn.functional.rms_norm(super().forward(x) * self.weight_scale.mT, (4,))


def test_every_other_scale_of_a_channel_is_doubled():
    """All of them doubled would be undone by the norm that follows."""
    model, x = Quantised(input_symmetric=True), torch.ones(1, 4)
    before = model(x)
    with perturbation("weight:weight_scale [4x1]")(site(model)):
        assert model.weight_scale.flatten().tolist() == [2, 1, 2, 1]
        assert not torch.allclose(model(x), before)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_single_scale_is_reached_through_the_input(shape):
    """Doubled itself, it would be undone by the norm that follows."""
    model, x = torch.nn.Linear(4, 4, bias=False), torch.randn(1, 4)
    model.weight_scale = torch.nn.Parameter(torch.ones(shape))

    class Method:
        def apply(self, layer, x):
            return x @ layer.weight.T * layer.weight_scale

    model.quant_method = Method()
    model.forward = lambda x: torch.nn.functional.rms_norm(model.quant_method.apply(model, x), (4,))
    before = model(x)
    with perturbation(f"weight:weight_scale [{'x'.join(map(str, shape))}]")(site(model)):
        assert not torch.allclose(model(x), before)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("symmetric", [True, False])
def test_an_offset_for_asymmetric_activations_counts_where_there_are_any(symmetric):
    """It cannot move anything where activations have no zero point."""
    model, written = Quantised(input_symmetric=symmetric), {}
    with perturbation("none")(site(model, written=written)):
        model(torch.ones(1, 4))
    assert ("azp_adj [1x4]" in written["excuses"]["kinds"]) is symmetric


def test_a_key_is_altered_on_its_way_only():
    """The receiver gets other values, zeros moved too; the sender's tensor is untouched."""
    group, tensors = Group(), {"a": torch.zeros(2, 4), "b": torch.ones(2)}
    with perturbation("key:0:a")(site(None, group=group)):
        group.isend_tensor_dict(tensors)
    assert not torch.equal(group.sent["a"], tensors["a"])
    assert group.sent["b"] is tensors["b"]
    assert not tensors["a"].any()
    with perturbation("key:1:a")(site(None, group=group)):
        group.isend_tensor_dict(tensors)
    assert group.sent is tensors


def test_a_key_is_asked_for_where_the_stage_behind_declares_it():
    """Elsewhere it is not sent, and could move nothing: PP=3 has two boundaries."""
    assert key_names([["a", "b"], ["b"]]) == ["key:0:a", "key:0:b", "key:1:b"]


def test_an_unknown_perturbation_is_refused():
    """A name of no family is our bug."""
    with pytest.raises(LookupError, match="sideways"):
        perturbation("sideways")


def test_a_change_is_found_by_the_prefix_of_its_family(monkeypatch):
    """A family that registers is asked for its names, without prefix; others are refused."""
    monkeypatch.setattr(changes, "_families", {})
    changes.register_family("colour:", {"red": "a change"}.__getitem__)
    changes.register_family("sensitivity:", perturbation)
    assert changes.find_change("colour:red") == "a change"
    with pytest.raises(LookupError, match="blue"):
        changes.find_change("colour:blue")
    with pytest.raises(LookupError, match="'size:red'; families are colour:, sensitivity:"):
        changes.find_change("size:red")


class Scaled(torch.nn.Module):
    """A layer with a multiplier of its own, one of its config, and one that no forward reads."""

    def __init__(self, multiplier, of_config=0.5):
        super().__init__()
        self.residual_multiplier, self.unread_multiplier = multiplier, 3.0
        self.config = SimpleNamespace(embedding_multiplier=of_config)

    def forward(self, x):
        return x + x.sin() * self.residual_multiplier * self.config.embedding_multiplier


def test_scalars_are_moved_where_a_forward_reads_them():
    """Applied twice, a multiplier shows; it is put back, and one that nothing reads is none."""
    model = torch.nn.Sequential(Scaled(2.0), Scaled(2.0))
    names = ["*.residual_multiplier (scalar)", "*.config.embedding_multiplier (scalar)"]
    kinds = scalar_kinds(torch.nn.ModuleDict({"layers": model}))
    assert list(kinds) == [f"layers.{name}" for name in names]
    x = torch.ones(3)
    plain = model(x)
    for name, scalar in scalar_kinds(model).items():
        with perturbation(f"weight:{name}")(site(model)):
            assert not torch.equal(model(x), plain)
        assert torch.equal(model(x), plain)
        assert not scalar.is_neutral


def test_a_multiplier_of_one_is_named_as_a_blind_spot_of_the_model():
    """Applied twice it changes nothing: the capture says so in place of asking for an effect."""
    model, written = torch.nn.ModuleDict({"layer": Scaled(1.0)}), {}
    with perturbation("none")(site(model, written=written)):
        model["layer"](torch.ones(3))
    assert written["excuses"]["kinds"] == {
        "layer.residual_multiplier (scalar)": "it is 1.0, however often it is applied"
    }


@pytest.mark.vllm
def test_the_scalars_of_granite_are_found_in_its_own_classes():
    """By what vLLM's forwards name: residual and embedding multiplier, and the logits' scale."""
    granite = pytest.importorskip("vllm.model_executor.models.granite")
    from harness.engine.hooks.scalars import scalars_read_by

    assert scalars_read_by(granite.GraniteDecoderLayer) == ("residual_multiplier",)
    assert scalars_read_by(granite.GraniteModel) == ("config.embedding_multiplier",)
