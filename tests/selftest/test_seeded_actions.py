"""Each seeded change acts, and is undone: on a pipeline small enough for milliseconds.

That it does the same to vLLM's models is what the self-test shows on real engines.
"""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from harness.engine.hooks.site import COPIES, Site
from harness.engine.seeded import UNCHANGED, declared, resolve
from harness.engine.seeded.alter import on_arrival
from harness.engine.seeded.computation import _windowed

torch = pytest.importorskip("torch", reason="seeded changes alter tensors")

from harness.engine.hooks.step import RowSpan  # noqa: E402 - needs torch

WIDTH, LAYERS = 4, 9
WINDOWS = {"sliding": (31, 0), "full": (-1, -1)}
# Layer 6 is a full one, as in the instrument that the faults are written for.
TYPES = ["full" if layer % 3 == 0 else "sliding" for layer in range(LAYERS)]
# Steps as (first position, rows, length of the prompt) of each request.
STEPS = [
    [(0, 3, 3), (0, 70, 70)],
    [(299, 5, 304)],
    [(4, 1, 3), (71, 1, 70), (305, 1, 304)],
    [(3, 1, 3)],
    [(position, 1, 3) for position in range(3, 13)],
]


class Module(torch.nn.Module):
    """A module with parameters of its own values."""

    def __init__(self, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, torch.nn.Parameter(torch.rand(shape) + 0.5, requires_grad=False))


class Norm(Module):
    def forward(self, x):
        return x * self.weight


class Layer(Module):
    """A decoder layer in which everything that a fault alters moves the output."""

    def __init__(self, index):
        super().__init__(layer_scalar=())
        self.index = index
        self.self_attn = Module()
        self.self_attn.v_norm = Norm(weight=WIDTH)
        self.self_attn.attn = Module()
        window = WINDOWS[TYPES[index]]
        self.self_attn.attn.impl = SimpleNamespace(scale=0.5, sliding_window=window)
        self.moe = Module(per_expert_scale=4)
        self.moe.experts = Module(w2_weight=(4, WIDTH))

    def forward(self, positions, hidden, residual, ple):
        impl = self.self_attn.attn.impl
        seen = self.self_attn.v_norm(hidden) * impl.scale + positions[:, None] / 100
        experts = (self.moe.experts.w2_weight * self.moe.per_expert_scale[:, None]).cumsum(0)
        made = torch.tanh(seen + sum(impl.sliding_window) / 100 + experts.prod(0) / 100)
        return hidden + (made + ple[:, self.index]) * self.layer_scalar, residual


class Decoder(Module):
    hidden_size_per_layer_input = WIDTH

    def __init__(self, layers):
        super().__init__()
        self.layers = torch.nn.ModuleDict({str(index): Layer(index) for index in layers})
        self.norm = Norm(weight=WIDTH)


class Stage(Module):
    """The model of one stage, and its pipeline group and model runner too."""

    def __init__(self, rank, layers, stages):
        super().__init__()
        self.rank_in_group, self.world_size = rank, stages
        self.model = Decoder(layers)
        self.logits_processor = Module()
        self.logits_processor.soft_cap = 1.0
        self.kv_caches = []
        self.model_config = SimpleNamespace(hf_text_config=SimpleNamespace(layer_types=TYPES))

    @property
    def decoder_layers(self):
        return {layer.index: layer for layer in self.model.layers.values()}

    def sync_and_slice_intermediate_tensors(self, _count, given, _sync_self):
        return given

    def isend_tensor_dict(self, tensors):
        return SimpleNamespace(tensors=dict(tensors))

    def forward(self, positions, given):
        hidden, ple = given.tensors["hidden_states"], given.tensors.get("per_layer_inputs")
        if ple is None or not self.model.hidden_size_per_layer_input:
            ple = torch.zeros(len(hidden), LAYERS, WIDTH)
        hidden, residual = hidden.float(), None
        for layer in self.decoder_layers.values():
            hidden, residual = layer(positions, hidden, residual, ple=ple)
        if self.rank_in_group < self.world_size - 1:
            return SimpleNamespace(tensors={"hidden_states": hidden, "per_layer_inputs": ple})
        logits, cap = self.model.norm(hidden), self.logits_processor.soft_cap
        return SimpleNamespace(tensors={"logits": torch.tanh(logits) if cap else logits})


def pipeline(change):
    """Return the stages of a model, divided as the instruments are."""
    torch.manual_seed(0)
    starts = [0, 2, 4, 6] if change.pp == 4 else [0, 5 if change.model == "ple" else 4]
    ends = [*starts[1:], LAYERS]
    parts = [range(start, end) for start, end in zip(starts, ends, strict=True)]
    return [Stage(rank, layers, len(parts)) for rank, layers in enumerate(parts)]


def run(stages, name):
    """Run all steps under a change; return what arrived at each stage, and what it sent or made."""
    memories = [{} for _ in stages]
    trace = []
    for number, requests in enumerate(STEPS):
        spans = [RowSpan("", start, count, length, ()) for start, count, length in requests]
        positions = torch.cat([torch.tensor(span.positions) for span in spans])
        draw = torch.Generator().manual_seed(number)
        given = SimpleNamespace(
            tensors={
                "hidden_states": torch.randn(len(positions), WIDTH, generator=draw),
                "per_layer_inputs": torch.randn(len(positions), LAYERS, WIDTH, generator=draw),
            }
        )
        for stage, memory in zip(stages, memories, strict=True):
            site = Site(stage, stage, stage, stage.decoder_layers, tuple(spans), memory, None)
            with ExitStack() as step:
                step.enter_context(resolve(name)(site))
                arrived = stage.sync_and_slice_intermediate_tensors(0, given, False)
                given = stage.isend_tensor_dict(stage(positions, arrived).tensors)
            trace += [arrived.tensors, given.tensors]
    return trace


def are_equal(left, right):
    return all(
        one.keys() == other.keys()
        and all(one[key].dtype == other[key].dtype for key in one)
        and all(torch.equal(one[key], other[key]) for key in one)
        for one, other in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(
    "change",
    # Caches are vLLM's own: only a real engine has those.
    [change for change in declared() if change.kind != "KV cache"],
    ids=lambda change: change.name,
)
def test_a_fault_alters_and_a_harmless_change_does_not(change):
    """A fault moves what stages send or make, a harmless change moves no bit; both are undone."""
    stages = pipeline(change)
    plain = run(stages, UNCHANGED)
    assert are_equal(plain, run(stages, change.name)) == change.harmless
    assert are_equal(plain, run(stages, UNCHANGED))


@pytest.mark.parametrize("name", COPIES)
def test_what_arrives_is_altered_whatever_a_release_calls_the_copy(name):
    """The V1 runner's method has another name since 0.26.0; afterwards it is vLLM's own again."""
    runner = SimpleNamespace(**{name: lambda _count, given, _sync_self: given})
    copy = getattr(runner, name)
    change = on_arrival(1)(lambda _site, tensors: {**tensors, "more": 1})
    with change(SimpleNamespace(stage=1, runner=runner)):
        arrived = getattr(runner, name)(0, SimpleNamespace(tensors={"hidden_states": 0}), True)
    assert arrived.tensors == {"hidden_states": 0, "more": 1}
    assert getattr(runner, name) is copy


@pytest.mark.parametrize(
    ("own", "lost", "narrow"), [((-1, -1), (-1, -1), (31, 0)), (64, -1, 32)], ids=["pair", "number"]
)
def test_a_window_is_given_in_the_form_of_its_attention(own, lost, narrow):
    """vLLM's attention for a CPU takes a number since 0.26.0, every other one a pair."""
    impl = SimpleNamespace(sliding_window=own)
    for tokens, wanted in ((None, lost), (32, narrow)):
        with _windowed(impl, tokens):
            assert impl.sliding_window == wanted
        assert impl.sliding_window == own
