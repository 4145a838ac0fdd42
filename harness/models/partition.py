"""How a model's layers are cut over pipeline ranks, from its config alone: no torch, no vLLM.

vLLM builds a layer only on the rank that runs it. A layer that shares its key-value cache with an
earlier one (``num_kv_shared_layers``) needs that source on the same rank; across a boundary vLLM
refuses to load. So not every cut is legal, and at some sizes vLLM's own is not.

Everything goes by the keys that a config has, never by the name of a model family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadInputError

Config = Mapping[str, Any]

PARTITION_VARIABLE = "VLLM_PP_LAYER_PARTITION"
_COUNT_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# Layers of these kinds hold a recurrent state and no key-value cache.
_NO_KV_KINDS = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent", "mlp", "moe"})
# A config with one of these has layers whose weights the counting below does not know.
_UNCOUNTED = (
    "kv_lora_rank", "mamba_d_state", "ssm_cfg", "linear_num_key_heads", "conv_L_cache",
    "first_k_dense_replace", "n_shared_experts", "shared_expert_intermediate_size",
    "altup_num_inputs", "laurel_rank", "layers_block_type", "hybrid_override_pattern",
    "interleave_moe_layer_step", "parallel_attn", "block_configs",
)  # fmt: skip
_NEEDED = ("hidden_size", "intermediate_size", "num_attention_heads")
_OPTIONAL = ("num_key_value_heads", "num_global_key_value_heads", "head_dim", "global_head_dim")
# Families with another activation mostly have an MLP without a gate.
_GATED_ACTIVATIONS = ("silu", "swiglu")


@dataclass(frozen=True)
class RankPlan:
    """What one pipeline rank holds.

    Attributes:
        first_layer: index of its first decoder layer.
        layers: number of decoder layers; the last has index ``first_layer + layers - 1``.
        kv_layers: how many of them own a key-value cache.
        parameters: weights in these decoder layers, None where the config does not tell.
            Embeddings and the output head come on top.

    """

    rank: int
    first_layer: int
    layers: int
    kv_layers: int
    parameters: int | None


@dataclass(frozen=True)
class PartitionPlan:
    """A cut of all layers over ``pp`` ranks, and whether vLLM can load it.

    Attributes:
        layers_per_rank: the cut that is proposed, or the requested one.
        is_default: vLLM makes this cut by itself; else it must be told (`environment`).
        illegal_reason: why this cut cannot be loaded; None if it is legal.
        note: one sentence for the reader; empty if there is nothing to say.
        default_cut: the cut that vLLM makes by itself, legal or not.
        ranks: what each rank holds; empty where the cut does not fit the model.

    """

    pp: int
    layers_per_rank: tuple[int, ...]
    is_default: bool
    illegal_reason: str | None
    note: str
    default_cut: tuple[int, ...]
    ranks: tuple[RankPlan, ...]

    @property
    def value(self) -> str:
        """The cut as a value for ``VLLM_PP_LAYER_PARTITION``."""
        return as_value(self.layers_per_rank)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make vLLM cut so; empty if it does by itself."""
        return {} if self.is_default else {PARTITION_VARIABLE: self.value}


def plan_partition(
    config: Config, pp: int, requested: Sequence[int] | None = None
) -> PartitionPlan:
    """Plan the cut of a model over ``pp`` ranks.

    Without a request this is vLLM's own cut if it is legal, else the legal cut nearest to
    balanced, else vLLM's own cut with the reason that it is illegal. A request is kept as it is
    and judged.

    Args:
        config: the content of a ``config.json``; a nested ``text_config`` is found.
        pp: number of pipeline ranks.
        requested: layers of each rank.

    Raises:
        BadInputError: ``pp`` is below 1, or the config has no number of layers.

    """
    if pp < 1:
        raise BadInputError(f"a pipeline needs at least one rank, got {pp}")
    total = layer_count(config)
    default = default_cut(total, pp)
    if requested is not None:
        cut = tuple(requested)
        return _plan(config, cut, default, illegal_reason(config, cut, pp), "")
    reason = illegal_reason(config, default, pp)
    if reason is None:
        return _plan(config, default, default, None, "")
    legal = balanced_cut(config, pp)
    if legal is None:
        return _plan(config, default, default, reason, "no cut into that many ranks is legal")
    note = (
        f"vLLM's own cut {as_value(default)} is illegal: {reason}; "
        f"nearest to balanced is {as_value(legal)}"
    )
    return _plan(config, legal, default, None, note)


def default_cut(layers: int, pp: int) -> tuple[int, ...]:
    """Return the cut that vLLM makes by itself: even, the left over goes to late ranks first.

    The last rank never takes an extra layer, since it also has the head; the one before it
    takes the first, and so on towards the front.
    """
    each, left = divmod(layers, pp)
    return tuple(each + (pp - 1 - left <= rank < pp - 1) for rank in range(pp))


def illegal_reason(config: Config, cut: Sequence[int], pp: int) -> str | None:
    """Tell why vLLM cannot load this cut; None if it can."""
    total = layer_count(config)
    if len(cut) != pp:
        return f"the cut {as_value(cut)} names {len(cut)} ranks, the pipeline has {pp}"
    if sum(cut) != total:
        return f"the cut {as_value(cut)} places {sum(cut)} layers, the model has {total}"
    if total < pp:
        return f"the model has {total} layers, fewer than {pp} ranks"
    if min(cut) < 1:
        return f"the cut {as_value(cut)} leaves rank {list(cut).index(min(cut))} without a layer"
    rank_of = [rank for rank, layers in enumerate(cut) for _ in range(layers)]
    for layer, source in sorted(kv_sources(config).items()):
        if rank_of[layer] != rank_of[source]:
            return (
                f"layer {layer} (rank {rank_of[layer]}) shares the KV cache of "
                f"layer {source}, which is on rank {rank_of[source]}"
            )
    return None


def balanced_cut(config: Config, pp: int) -> tuple[int, ...] | None:
    """Return the legal cut nearest to balanced, or None if none is legal.

    Nearest: the smallest sum of squared layer counts; then the fewest layers moved against
    vLLM's own cut; then the lighter early ranks, which also hold the embeddings.
    """
    total = layer_count(config)
    inside = {
        end for layer, source in kv_sources(config).items() for end in range(source + 1, layer + 1)
    }
    ends = [end for end in range(1, total + 1) if end not in inside]
    default = default_cut(total, pp)
    # The best cut of the first `end` layers into the ranks so far, with its cost.
    best: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, 0, ())}
    for rank in range(pp):
        longer: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for start, (squares, moved, cut) in best.items():
            for end in ends:
                size = end - start
                if size < 1:
                    continue
                option = (squares + size**2, moved + abs(size - default[rank]), (*cut, size))
                longer[end] = min(longer.get(end, option), option)
        best = longer
    return best[total][2] if total in best else None


def as_value(cut: Sequence[int]) -> str:
    """Return a cut as vLLM's variable writes it: ``2,3,3``."""
    return ",".join(str(layers) for layers in cut)


def _plan(
    config: Config,
    cut: tuple[int, ...],
    default: tuple[int, ...],
    reason: str | None,
    note: str,
) -> PartitionPlan:
    fits = sum(cut) == layer_count(config) and min(cut, default=0) >= 0
    return PartitionPlan(
        pp=len(default),
        layers_per_rank=cut,
        is_default=cut == default,
        illegal_reason=reason,
        note=note,
        default_cut=default,
        ranks=_ranks(config, cut) if fits else (),
    )


def _ranks(config: Config, cut: Sequence[int]) -> tuple[RankPlan, ...]:
    owners = kv_layers(config)
    weights = layer_parameters(config)
    plans, first = [], 0
    for rank, layers in enumerate(cut):
        own = range(first, first + layers)
        plans.append(
            RankPlan(
                rank=rank,
                first_layer=first,
                layers=layers,
                kv_layers=sum(layer in owners for layer in own),
                parameters=None if weights is None else sum(weights[layer] for layer in own),
            )
        )
        first += layers
    return tuple(plans)


def text_config(config: Config) -> Config:
    """Return the part that describes the text decoder: a nested ``text_config``, or the whole."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def layer_count(config: Config) -> int:
    """Return the number of decoder layers.

    Raises:
        BadInputError: the config names none.

    """
    text = text_config(config)
    for key in _COUNT_KEYS:
        value = text.get(key)
        if isinstance(value, int) and value > 0:
            return value
    raise BadInputError(
        "the config names no number of layers (looked for "
        f"{', '.join(_COUNT_KEYS)}, also under text_config); is it a decoder's config.json?"
    )


def layer_kinds(config: Config) -> tuple[str, ...]:
    """Return the kind of each layer, as ``layer_types`` or ``layers_block_type`` names it.

    Without either key, every layer is ``full_attention``.
    """
    text, total = text_config(config), layer_count(config)
    for key in ("layer_types", "layers_block_type"):
        kinds = text.get(key)
        if isinstance(kinds, list | tuple):
            if len(kinds) != total:
                raise BadInputError(f"{key} names {len(kinds)} layers, the config has {total}")
            return tuple(str(kind) for kind in kinds)
    return ("full_attention",) * total


def kv_sources(config: Config) -> dict[int, int]:
    """Map each layer that shares a key-value cache to the layer that owns it.

    The last ``num_kv_shared_layers`` layers have no cache; each reads that of the last layer of
    its own kind before them.

    Raises:
        BadInputError: a shared layer's kind does not occur before the shared tail.

    """
    text, total = text_config(config), layer_count(config)
    shared = int(text.get("num_kv_shared_layers") or 0)
    if shared <= 0:
        return {}
    if shared >= total:
        raise BadInputError(f"num_kv_shared_layers is {shared}, the model has {total} layers")
    if not isinstance(text.get("layer_types"), list | tuple):
        raise BadInputError(
            "the config shares KV caches but has no layer_types; save it again with transformers"
        )
    kinds, first = layer_kinds(config), total - shared
    last_of_kind = {kind: layer for layer, kind in enumerate(kinds[:first])}
    missing = sorted(set(kinds[first:]) - last_of_kind.keys())
    if missing:
        raise BadInputError(f"no layer before the KV-shared tail is a {missing[0]}")
    return {layer: last_of_kind[kinds[layer]] for layer in range(first, total)}


def kv_layers(config: Config) -> frozenset[int]:
    """Return the layers that own a key-value cache."""
    shared = kv_sources(config)
    return frozenset(
        layer
        for layer, kind in enumerate(layer_kinds(config))
        if layer not in shared and kind not in _NO_KV_KINDS
    )


def layer_parameters(config: Config) -> tuple[int, ...] | None:
    """Count the weights in each layer's linear maps; None where the config does not tell.

    Attention, MLP, experts with their router, and per-layer-input maps are counted. Norms,
    biases and scalars, under a thousandth together, are not.
    """
    text = text_config(config)
    # A list in place of a number, as some families have it, is left uncounted too.
    if (
        any(text.get(key) for key in _UNCOUNTED)
        or not all(isinstance(text.get(key), int) for key in _NEEDED)
        or not all(isinstance(text.get(key), int | None) for key in _OPTIONAL)
        or not ("hidden_activation" in text or text.get("hidden_act") in _GATED_ACTIVATIONS)
    ):
        return None
    kinds = layer_kinds(config)
    if set(kinds) - {"full_attention", "sliding_attention", "chunked_attention"}:
        return None
    shared = kv_sources(config)
    return tuple(
        _attention(text, kind)
        + _feed_forward(text, layer, layer in shared)
        + 2 * text["hidden_size"] * int(text.get("hidden_size_per_layer_input") or 0)
        for layer, kind in enumerate(kinds)
    )


def _attention(text: Config, kind: str) -> int:
    """Query, key, value and output maps. KV-shared layers carry unused key and value maps too."""
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    kv_heads = text.get("num_key_value_heads") or heads
    head = text.get("head_dim") or hidden // heads
    if kind == "full_attention":
        head = text.get("global_head_dim") or head
        if text.get("attention_k_eq_v"):
            # One map serves as key and value in the checkpoint.
            kv_heads = text.get("num_global_key_value_heads") or kv_heads
            return int(hidden * head * (2 * heads + kv_heads))
    return int(hidden * head * 2 * (heads + kv_heads))


def _feed_forward(text: Config, layer: int, kv_shared: bool) -> int:
    """Gated MLP, experts, or both side by side."""
    hidden = text["hidden_size"]
    width = text["intermediate_size"]
    if kv_shared and text.get("use_double_wide_mlp"):
        width *= 2
    dense = 3 * hidden * width
    experts = text.get("num_experts") or text.get("num_local_experts") or 0
    if not experts:
        return int(dense)
    expert_width = text.get("moe_intermediate_size") or width
    sparse = experts * 3 * hidden * expert_width + experts * hidden
    if "enable_moe_block" in text:
        return int(dense + sparse) if text["enable_moe_block"] else int(dense)
    is_sparse = (
        layer not in (text.get("mlp_only_layers") or ())
        and (layer + 1) % int(text.get("decoder_sparse_step") or 1) == 0
    )
    return int(sparse if is_sparse else dense)
