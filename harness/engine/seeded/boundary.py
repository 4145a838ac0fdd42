"""The seeded faults and harmless changes, by name. Runs inside the engine's processes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from ..hooks.changes import Change, Site
from . import alter

Action = Callable[[Site], AbstractContextManager[Any]]
_ACTIONS: dict[str, Action] = {}


def change(name: str) -> Change:
    """Return the change of a name in the catalogue.

    Raises:
        LookupError: if there is none.
    """
    if name not in _ACTIONS:
        raise LookupError(f"the self-test has no change {name!r}")

    def begin(site: Site) -> Any:
        if not site.memory:
            # A NaN that an earlier fault left in the cache spreads, even where it is masked.
            for cache in site.runner.kv_caches:
                cache.zero_()
            site.memory["begun"] = True
        return _ACTIONS[name](site)

    return begin


def _named(name: str) -> Callable[[Action], Action]:
    def add(action: Action) -> Action:
        _ACTIONS[name] = action
        return action

    return add


def _key(place: Any, name: str, stage: int, key: str, to: Callable[[Site, Any], Any]) -> None:
    """Register a change of one boundary key at one place (`alter.on_...`) of one stage."""

    def act(site: Site) -> Any:
        def one(tensors: dict[str, Any]) -> dict[str, Any]:
            return {**tensors, key: to(site, tensors[key])}

        return place(site, stage, one)

    _ACTIONS[name] = act


HIDDEN, PLE = "hidden_states", "per_layer_inputs"


# ---- what crosses a boundary -----------------------------------------------------------------


def _stale(key: str) -> Callable[[Site, Any], Any]:
    """Give the value of the step before, cut or filled up with zeros to this step's rows."""

    def to(site: Site, now: Any) -> Any:
        before = site.memory.get(key)
        site.memory[key] = now.clone()
        old = torch.zeros_like(now)
        if before is not None:
            count = min(len(before), len(now))
            old[:count] = before[:count]
        return old

    return to


def _scaled(wanted: Callable[[Site], list[int]], factor: float) -> Callable[[Site, Any], Any]:
    def to(site: Site, now: Any) -> Any:
        now = now.clone()
        now[wanted(site)] *= factor
        return now

    return to


def _in_decode(to: Callable[[Site, Any], Any]) -> Callable[[Site, Any], Any]:
    def only(site: Site, now: Any) -> Any:
        changed, chosen = to(site, now), alter.decoding(site)
        now = now.clone()
        now[chosen] = changed[chosen]
        return now

    return only


def _swapped_layers(_site: Site, now: Any) -> Any:
    now = now.clone()
    now[:, [5, 6]] = now[:, [6, 5]]
    return now


def _row_duplicated(_site: Site, now: Any) -> Any:
    now = now.clone()
    if len(now) > 1:
        now[1] = now[0]
    return now


def _one_ulp(_site: Site, now: Any) -> Any:
    now = now.clone()
    now[0, 0] = torch.nextafter(now[0, 0], torch.full_like(now[0, 0], float("inf")))
    return now


def _requests_swapped(site: Site, now: Any) -> Any:
    if len(site.spans) < 2:
        return now
    first, second = site.spans[:2]
    count = min(first.count, second.count)
    other = first.count
    now = now.clone()
    kept = now[:count].clone()
    now[:count] = now[other : other + count]
    now[other : other + count] = kept
    return now


def _batch_before(site: Site, now: Any) -> Any:
    changed = _stale(HIDDEN)(site, now)
    return changed if len(site.spans) > 1 else now


def _decode_batch(count: int, first_only: bool = False) -> Callable[[Site], list[int]]:
    def wanted(site: Site) -> list[int]:
        chosen = alter.decoding(site)
        if first_only:
            return chosen[:1] if len(chosen) > 1 else []
        return chosen if len(chosen) == count else []

    return wanted


def _large_batch(site: Site) -> list[int]:
    """Return the rows of a decode batch that is larger than that of any probe."""
    chosen = alter.decoding(site)
    return chosen if len(chosen) > 8 else []


def _from(position: int) -> Callable[[Site], list[int]]:
    return lambda site: alter.rows(site, lambda _span, at: at >= position)


def _bfloat16(_site: Site, now: Any) -> Any:
    return now.bfloat16().to(now.dtype)


_key(alter.on_read, "ple-layers-swapped", 1, PLE, _swapped_layers)
_key(alter.on_read, "hidden-stale", 1, HIDDEN, _stale(HIDDEN))
_key(alter.on_read, "ple-stale-in-decode", 1, PLE, _in_decode(_stale(PLE)))
_key(alter.on_send, "row-duplicated", 0, HIDDEN, _row_duplicated)
_key(alter.on_read, "ple-duplicated", 1, PLE, lambda _s, now: now[:, 5:6].expand_as(now))
_key(alter.on_read, "ple-transposed", 1, PLE, lambda _s, now: now.mT.reshape(now.shape))
_key(alter.on_read, "hidden-rows-reversed", 1, HIDDEN, lambda _s, now: now.flip(0))
_key(alter.on_read, "downcast-on-read", 1, HIDDEN, _bfloat16)
_key(alter.on_send, "downcast-on-wire", 0, HIDDEN, lambda _s, now: now.bfloat16())
_key(alter.on_send, "upcast-on-wire", 0, HIDDEN, lambda _s, now: now.double())
_key(alter.on_return, "relayed-as-zeros", 1, PLE, lambda _s, now: torch.zeros_like(now))
_key(alter.on_read, "ple-slice-off-by-one", 1, PLE, lambda _s, now: now.roll(1, 1))
_key(alter.on_read, "ple-slice-local", 1, PLE, lambda _s, now: now.roll(5, 1))
_key(alter.on_read, "embed-scale-on-receive", 1, HIDDEN, lambda _s, now: now * now.shape[-1] ** 0.5)
_key(alter.on_send, "mutated-before-send", 0, HIDDEN, lambda _s, now: now + 0.01)
_key(alter.on_arrival, "mutated-in-flight", 1, HIDDEN, lambda _s, now: now * 1.01)
_key(alter.on_read, "requests-swapped", 1, HIDDEN, _requests_swapped)
_key(alter.on_read, "batch-of-step-before", 1, HIDDEN, _batch_before)
_key(alter.on_read, "long-context-only", 1, PLE, _scaled(_from(64), 0.0))
_key(alter.on_read, "past-position-300", 1, HIDDEN, _scaled(_from(300), 1.01))
_key(alter.on_read, "pp4-only", 3, HIDDEN, lambda _s, now: now.roll(1, -1))
_key(alter.on_read, "decode-only", 1, HIDDEN, _scaled(alter.decoding, 1.001))
_key(alter.on_read, "first-row-of-batch", 1, HIDDEN, _scaled(_decode_batch(0, True), 1.01))
_key(alter.on_read, "three-in-decode", 1, HIDDEN, _scaled(_decode_batch(3), 1.01))
_key(alter.on_read, "large-batch-only", 1, HIDDEN, _scaled(_large_batch, 0.0))
_key(alter.on_arrival, "one-ulp", 1, HIDDEN, _one_ulp)


@_named("key-not-sent")
def _key_not_sent(site: Site) -> Any:
    return alter.on_send(site, 0, _without_ple)


@_named("not-relayed")
def _not_relayed(site: Site) -> Any:
    return alter.on_return(site, 1, _without_ple)


def _without_ple(tensors: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tensors.items() if key != PLE}


@_named("key-not-read")
def _key_not_read(site: Site) -> Any:
    decoder = site.model.model
    width = decoder.hidden_size_per_layer_input if site.stage == 0 else 0
    return alter.attribute(decoder, "hidden_size_per_layer_input", width)


# ---- what a stage computes -------------------------------------------------------------------


def _later(site: Site) -> range:
    """Return the layers of this stage if it is not the first."""
    return range(min(site.layers), max(site.layers) + 1) if site.stage > 0 else range(0)


def _module(name: str, path: str, layer: int | None, act: Callable[[Any], Any]) -> None:
    """Register a change of one submodule: of a layer, or of the last stage."""

    def action(site: Site) -> Any:
        root = site.layers.get(layer) if layer is not None else site.model
        if root is None or (layer is None and site.stage < site.stages - 1):
            return ExitStack()
        return act(root.get_submodule(path))

    _ACTIONS[name] = action


def _identity(module: Any) -> Any:
    return alter.attribute(module, "forward", lambda x, *_args, **_kwargs: x)


_module("final-norm-missing", "model.norm", None, _identity)
_module("final-norm-unset", "model.norm", None, lambda m: alter.weight(m.weight, torch.ones_like))
_module("softcap-missing", "logits_processor", None, lambda m: alter.attribute(m, "soft_cap", None))
_module(
    "window-on-full",
    "self_attn.attn",
    6,
    lambda m: alter.attribute(m.impl, "sliding_window", (31, 0)),
)
_module("value-norm-lost", "self_attn.v_norm", 7, _identity)
_module(
    "attention-scale",
    "self_attn.attn",
    4,
    lambda m: alter.attribute(m.impl, "scale", m.impl.scale * 0.999),
)
_ACTIONS["layer-scalar-unset"] = lambda site: (
    alter.weight(site.layers[5].layer_scalar, torch.ones_like) if 5 in site.layers else ExitStack()
)
_module("one-expert", "moe.experts", 5, lambda m: alter.weight(m.w2_weight, _without_expert_3))
_module(
    "experts-one-off", "moe.experts", 4, lambda m: alter.weight(m.w2_weight, lambda w: w.roll(1, 0))
)
_module(
    "expert-scales-one-off",
    "moe",
    4,
    lambda m: alter.weight(m.per_expert_scale, lambda w: w.roll(1)),
)


def _without_expert_3(weights: Any) -> Any:
    weights = weights.clone()
    weights[3] = 0
    return weights


def _output(name: str, layer: int, to: Callable[[Any, Any], Any]) -> None:
    def action(site: Site) -> Any:
        return alter.on_layer_output(site, layer, to)

    _ACTIONS[name] = action


_output("layer-skipped", 5, lambda given, _made: given)
_output("residual-twice", 5, lambda given, made: made + given)
_output("residual-lost", 5, lambda given, made: made - given)
_output("numeric-only", 5, lambda _given, made: (made.double() * (1 + 1e-7)).to(made.dtype))


@_named("layer-twice")
def _layer_twice(site: Site) -> Any:
    if 5 not in site.layers:
        return ExitStack()
    layer = site.layers[5]
    once = layer.forward

    def twice(positions: Any, hidden: Any, residual: Any, **kwargs: Any) -> Any:
        hidden, residual = once(positions, hidden, residual, **kwargs)
        return once(positions, hidden, residual, **kwargs)

    return alter.attribute(layer, "forward", twice)


@_named("layers-swapped")
@contextmanager
def _layers_swapped(site: Site) -> Iterator[None]:
    if 4 not in site.layers:
        yield
        return
    one, other = site.layers[4], site.layers[5]
    forwards = one.forward, other.forward
    with (
        alter.attribute(one, "forward", forwards[1]),
        alter.attribute(other, "forward", forwards[0]),
    ):
        yield


@_named("embed-scale-twice")
def _embed_scale_twice(site: Site) -> Any:
    def scale(args: list[Any], _kwargs: dict[str, Any]) -> None:
        args[1] = args[1] * args[1].shape[-1] ** 0.5

    return alter.on_layer_input(site, range(1) if site.stage == 0 else range(0), scale)


@_named("positions-shifted")
def _positions_shifted(site: Site) -> Any:
    def shift(args: list[Any], _kwargs: dict[str, Any]) -> None:
        args[0] = args[0] + 3

    return alter.on_layer_input(site, _later(site), shift)


@_named("positions-restart")
def _positions_restart(site: Site) -> Any:
    def restart(args: list[Any], _kwargs: dict[str, Any]) -> None:
        args[0] = args[0].clone()
        args[0][alter.decoding(site)] = 0

    return alter.on_layer_input(site, _later(site), restart)


@_named("window-lost")
@contextmanager
def _window_lost(site: Site) -> Iterator[None]:
    with ExitStack() as stack:
        for index in _later(site):
            impl = site.layers[index].self_attn.attn.impl
            stack.enter_context(alter.attribute(impl, "sliding_window", (-1, -1)))
        yield


@_named("windows-swapped")
@contextmanager
def _windows_swapped(site: Site) -> Iterator[None]:
    with ExitStack() as stack:
        if site.stage > 0:
            layers = _later(site)
            types = site.runner.model_config.hf_text_config.layer_types
            impls = {types[index]: site.layers[index].self_attn.attn.impl for index in layers}
            windows = {kind: impl.sliding_window for kind, impl in impls.items()}
            for own, index in enumerate(layers):
                impl = site.layers[index].self_attn.attn.impl
                stack.enter_context(alter.attribute(impl, "sliding_window", windows[types[own]]))
        yield


def _cache(layer: int, source: int, site: Site) -> Any:
    """Let the attention of `layer` work on the cache of `source`.

    A cache is a tensor and the blocks in it: layers of one tensor differ in their blocks alone
    (vLLM's hybrid cache groups), so that both are exchanged, where the backend is handed them.
    """
    if layer not in site.layers:
        return ExitStack()
    from vllm.model_executor.layers.attention.attention import get_attention_context

    impl = site.layers[layer].self_attn.attn.impl
    name = site.layers[source].self_attn.attn.layer_name
    compute = impl.forward

    def forward(
        module: Any, query: Any, key: Any, value: Any, cache: Any, steps: Any, *args: Any, **kw: Any
    ) -> Any:
        there, _, other, _ = get_attention_context(name)
        if other.data_ptr() == cache.data_ptr() and torch.equal(
            there.block_table, steps.block_table
        ):
            raise RuntimeError(f"layers {layer} and {source} share a cache: nothing is seeded")
        return compute(module, query, key, value, other, there, *args, **kw)

    return alter.attribute(impl, "forward", forward)


@_named("kv-of-another-layer")
def _kv_of_another_layer(site: Site) -> Any:
    return _cache(5, 7, site) if alter.decoding(site) else ExitStack()


@_named("kv-wrong-source")
def _kv_wrong_source(site: Site) -> Any:
    return _cache(8, 5, site)


# ---- harmless --------------------------------------------------------------------------------


def _every(place: Any, name: str, stage: int, to: Callable[[Any], Any]) -> None:
    def act(site: Site) -> Any:
        return place(site, stage, lambda tensors: {key: to(one) for key, one in tensors.items()})

    _ACTIONS[name] = act


_every(alter.on_send, "cloned-before-send", 0, lambda one: one.clone())
_every(alter.on_arrival, "cloned-on-arrival", 1, lambda one: one.clone())
_every(alter.on_read, "cloned-on-read", 1, lambda one: one.clone())
_every(alter.on_read, "through-double", 1, lambda one: one.double().to(one.dtype))
_every(alter.on_read, "reshaped-on-read", 1, lambda one: one.flatten().view(one.shape))
_every(alter.on_return, "relay-rebuilt", 1, lambda one: one * 1)
_module("weights-rewritten", "model.norm", None, lambda m: alter.weight(m.weight, torch.clone))


@_named("last")
@_named("nothing")
def _change_nothing(_site: Site) -> Any:
    return ExitStack()


@_named("keys-reordered")
def _keys_reordered(site: Site) -> Any:
    return alter.on_send(site, 0, lambda tensors: dict(reversed(list(tensors.items()))))


@_named("extra-attribute")
@contextmanager
def _extra_attribute(site: Site) -> Iterator[None]:
    site.model.of_the_selftest = 1
    try:
        yield
    finally:
        del site.model.of_the_selftest


@_named("extra-hook")
def _extra_hook(site: Site) -> Any:
    return alter.on_layer_input(site, _later(site), lambda args, _kwargs: args[1].norm())


@_named("positions-copied")
def _positions_copied(site: Site) -> Any:
    def copy(args: list[Any], _kwargs: dict[str, Any]) -> None:
        args[0] = args[0].clone()

    return alter.on_layer_input(site, _later(site), copy)


# ---- the same under stress -------------------------------------------------------------------

for _name in (
    *("one-ulp", "decode-only", "requests-swapped", "key-not-read"),
    *("nothing", "cloned-on-read"),
):
    _ACTIONS[f"{_name}-in-noise"] = _ACTIONS[_name]
