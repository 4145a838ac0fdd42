"""Faults of what a stage computes: its layers, norms, positions, attention, caches and experts."""

from contextlib import nullcontext
from typing import Any

from ..hooks.site import Site, attribute
from .alter import (
    Altered,
    Tensor,
    all_of,
    decode_rows,
    first_layer,
    identity,
    layers_of_later_stages,
    module_of_last_stage,
    module_of_layer,
    on_layer_input,
    on_layer_output,
    parameter_of_layer,
    weight,
    weight_of_ones,
)
from .declare import AFTER_LAYERS, fault

# ---- the layers of a stage -------------------------------------------------------------------


@fault("layer slice", "the first layer of stage 1 is left out")
@on_layer_output(5)
def _layer_skipped(given: Tensor, _made: Tensor) -> Tensor:
    return given


@fault("layer slice", "the first layer of stage 1 runs twice")
@module_of_layer(5)
def _layer_twice(layer: Any) -> Altered:
    once = layer.forward

    def twice(positions: Any, hidden: Any, residual: Any, **kwargs: Any) -> Any:
        hidden, residual = once(positions, hidden, residual, **kwargs)
        return once(positions, hidden, residual, **kwargs)

    return attribute(layer, "forward", twice)


@fault("layer slice", "layers 4 and 5 run in the wrong order", model="dense", layer=4)
def _layers_swapped(site: Site) -> Altered:
    if 4 not in site.layers:
        return nullcontext()
    fourth, fifth = site.layers[4], site.layers[5]
    of_fourth, of_fifth = fourth.forward, fifth.forward
    return all_of((attribute(fourth, "forward", of_fifth), attribute(fifth, "forward", of_fourth)))


@fault("residual", "layer 5 adds its residual twice")
@on_layer_output(5)
def _residual_twice(given: Tensor, made: Tensor) -> Tensor:
    return made + given


@fault("residual", "layer 5 loses its residual")
@on_layer_output(5)
def _residual_lost(given: Tensor, made: Tensor) -> Tensor:
    return made - given


@fault("numeric", "layer 5 is off by one part in ten million", fine=True)
@on_layer_output(5)
def _numeric_only(_given: Tensor, made: Tensor) -> Tensor:
    return (made.double() * (1 + 1e-7)).to(made.dtype)


# ---- norms, scales and caps ------------------------------------------------------------------


@fault("norm, softcap", "no final norm", layer=AFTER_LAYERS)
@module_of_last_stage("model.norm")
def _final_norm_missing(norm: Any) -> Altered:
    return identity(norm)


@fault("norm, softcap", "the final norm has weights of one", layer=AFTER_LAYERS)
@module_of_last_stage("model.norm")
def _final_norm_unset(norm: Any) -> Altered:
    return weight_of_ones(norm.weight)


@fault("norm, softcap", "no soft cap on the logits", quick=True, layer=AFTER_LAYERS)
@module_of_last_stage("logits_processor")
def _softcap_missing(processor: Any) -> Altered:
    return attribute(processor, "soft_cap", None)


@fault("norm, softcap", "the scalar of layer 5 is one")
@module_of_layer(5)
def _layer_scalar_unset(layer: Any) -> Altered:
    return weight_of_ones(layer.layer_scalar)


@fault("norm, softcap", "layer 7 does not normalise its values", model="moe", layer=7)
@module_of_layer(7, "self_attn.v_norm")
def _value_norm_lost(norm: Any) -> Altered:
    return identity(norm)


@fault("embedding scale", "stage 0 scales embeddings twice", stage=0, layer=0)
@on_layer_input(first_layer)
def _embed_scale_twice(_site: Site, args: list[Any]) -> None:
    args[1] = args[1] * args[1].shape[-1] ** 0.5


# ---- positions -------------------------------------------------------------------------------


@fault("RoPE", "positions of stage 1 are three too high: the same answers, other bits")
@on_layer_input(layers_of_later_stages)
def _positions_shifted(_site: Site, args: list[Any]) -> None:
    args[0] = args[0] + 3


@fault("RoPE", "positions of stage 1 are 0 in decode", quick=True)
@on_layer_input(layers_of_later_stages)
def _positions_restart(site: Site, args: list[Any]) -> None:
    args[0] = args[0].clone()
    args[0][decode_rows(site)] = 0


# ---- attention and its cache -----------------------------------------------------------------


@fault("numeric", "attention of layer 4 is scaled by 0.999", model="dense", layer=4)
@module_of_layer(4, "self_attn.attn")
def _attention_scale(attention: Any) -> Altered:
    return attribute(attention.impl, "scale", attention.impl.scale * 0.999)


def _windowed(impl: Any, tokens: int | None) -> Altered:
    """Give an attention a sliding window, or none, in its own form: tokens on either side, or all.

    The CPU's takes a number of tokens since vLLM 0.26.0.
    """
    pair = (-1, -1) if tokens is None else (tokens - 1, 0)
    number = -1 if tokens is None else tokens
    of_pairs = isinstance(impl.sliding_window, tuple)
    return attribute(impl, "sliding_window", pair if of_pairs else number)


@fault("sliding, full", "sliding layers of stage 1 see everything")
def _window_lost(site: Site) -> Altered:
    return all_of(
        _windowed(site.layers[index].self_attn.attn.impl, None)
        for index in layers_of_later_stages(site)
    )


@fault("sliding, full", "full layer 6 sees the sliding window only", layer=6)
@module_of_layer(6, "self_attn.attn")
def _window_on_full(attention: Any) -> Altered:
    return _windowed(attention.impl, 32)


@fault(
    "sliding, full",
    "stage 1 takes sliding for full and full for sliding: types by its own layer index",
    layer=6,
)
def _windows_swapped(site: Site) -> Altered:
    layers = layers_of_later_stages(site)
    types = site.runner.model_config.hf_text_config.layer_types
    impls = {index: site.layers[index].self_attn.attn.impl for index in layers}
    windows = {types[index]: impl.sliding_window for index, impl in impls.items()}
    return all_of(
        attribute(impl, "sliding_window", windows[types[own_index]])
        for own_index, impl in enumerate(impls.values())
    )


@fault("KV cache", "in decode layer 5 uses the cache of layer 7")
def _kv_of_another_layer(site: Site) -> Altered:
    return _cache_of(site, 7, layer=5) if decode_rows(site) else nullcontext()


@fault("KV cache", "layer 8 shares the cache of layer 5, not 7", layer=8)
def _kv_wrong_source(site: Site) -> Altered:
    return _cache_of(site, 5, layer=8)


def _cache_of(site: Site, source: int, *, layer: int) -> Altered:
    """Let the attention of `layer` work on the cache of `source`.

    A cache is a tensor and the blocks in it: layers of one tensor differ in their blocks alone
    (vLLM's hybrid cache groups), so that both are exchanged, where the backend is handed them.
    """
    if layer not in site.layers:
        return nullcontext()
    from vllm.model_executor.layers.attention.attention import get_attention_context

    impl = site.layers[layer].self_attn.attn.impl
    source_name = site.layers[source].self_attn.attn.layer_name
    compute = impl.forward

    def forward(
        module: Any, query: Any, key: Any, value: Any, cache: Any, steps: Any, *args: Any, **kw: Any
    ) -> Any:
        source_steps, _, source_cache, _ = get_attention_context(source_name)
        if source_cache.data_ptr() == cache.data_ptr() and source_steps.block_table.equal(
            steps.block_table
        ):
            raise RuntimeError(f"layers {layer} and {source} share a cache: nothing is seeded")
        return compute(module, query, key, value, source_cache, source_steps, *args, **kw)

    return attribute(impl, "forward", forward)


# ---- experts ---------------------------------------------------------------------------------


@fault("one expert", "expert 3 of layer 5 gives nothing", model="moe", quick=True)
@parameter_of_layer(5, "w2_weight")
def _one_expert(down_projections: Tensor) -> Altered:
    def without_third(weights: Tensor) -> Tensor:
        weights = weights.clone()
        weights[3] = 0
        return weights

    return weight(down_projections, without_third)


@fault("one expert", "experts of layer 4 have each other's output", model="moe", layer=4)
@parameter_of_layer(4, "w2_weight")
def _experts_one_off(down_projections: Tensor) -> Altered:
    return weight(down_projections, lambda weights: weights.roll(1, 0))


@fault("one expert", "scales of layer 4's experts are one off", model="moe", layer=4)
@parameter_of_layer(4, "per_expert_scale")
def _expert_scales_one_off(scales: Tensor) -> Altered:
    return weight(scales, lambda values: values.roll(1))
