"""Layer splits: how a model's layers are placed on pipeline ranks, from its config alone.

vLLM builds a layer only on the rank that runs it. A layer that shares its key-value cache with an
earlier one (`num_kv_shared_layers`) needs that source on the same rank; across a boundary vLLM
refuses to load. So not every layer split is legal, and at some sizes vLLM's own is not. No torch,
no vLLM.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BadInputError
from .config import Config, Decoder

PARTITION_VARIABLE = "VLLM_PP_LAYER_PARTITION"


@dataclass(frozen=True)
class PartitionPlan:
    """A layer split of a model over `pp` ranks, and whether vLLM can load it.

    Attributes:
        layers_per_rank: the split that is proposed, or the requested one.
        default_split: the split that vLLM makes by itself, legal or not.
        illegal_reason: why the split cannot be loaded; None if it is legal.
        note: one sentence for the reader, or nothing.
    """

    layers_per_rank: tuple[int, ...]
    default_split: tuple[int, ...]
    illegal_reason: str | None
    note: str

    @property
    def pp(self) -> int:
        """The number of pipeline ranks."""
        return len(self.default_split)

    @property
    def is_default(self) -> bool:
        """Whether vLLM makes this split by itself; else `PARTITION_VARIABLE` must say it."""
        return self.layers_per_rank == self.default_split

    @property
    def value(self) -> str:
        """The split as a value for `VLLM_PP_LAYER_PARTITION`."""
        return as_value(self.layers_per_rank)


def plan_partition(
    config: Config, pp: int, requested: Sequence[int] | None = None
) -> PartitionPlan:
    """Plan the layer split of a model over `pp` ranks.

    Without a request this is vLLM's own split if it is legal, else the legal split nearest to
    balanced, else vLLM's own split with the reason that it is illegal. A request is kept as it is
    and judged.

    Args:
        config: the content of a `config.json`.
        pp: number of pipeline ranks.
        requested: layers of each rank.

    Raises:
        BadInputError: `pp` is below 1, or the config cannot be planned with.
    """
    if pp < 1:
        raise BadInputError(f"a pipeline needs at least one rank, got {pp}")
    decoder, note = Decoder.of(config), ""
    default = default_split(decoder.layers, pp)
    split = default if requested is None else tuple(requested)
    reason = illegal_reason(decoder, split, pp)
    if reason is not None and requested is None:
        legal = balanced_split(decoder, pp)
        if legal is None:
            note = "no layer split over that many ranks is legal"
        else:
            note = (
                f"vLLM's own layer split {as_value(default)} is illegal: {reason}; "
                f"nearest to balanced is {as_value(legal)}"
            )
            split, reason = legal, None
    return PartitionPlan(split, default, reason, note)


def default_split(layers: int, pp: int) -> tuple[int, ...]:
    """Return the split that vLLM makes by itself: even, the left over goes to late ranks first.

    The last rank never takes an extra layer, since it also has the head; the rank before it
    takes the first, and so on towards the front.
    """
    each, left = divmod(layers, pp)
    return tuple(each + (pp - 1 - left <= rank < pp - 1) for rank in range(pp))


def illegal_reason(decoder: Decoder, split: Sequence[int], pp: int) -> str | None:
    """Explain why vLLM cannot load a layer split; None if it can."""
    total, value = decoder.layers, as_value(split)
    if len(split) != pp:
        return f"the layer split {value} names {len(split)} ranks, the pipeline has {pp}"
    if sum(split) != total:
        return f"the layer split {value} places {sum(split)} layers, the model has {total}"
    if total < pp:
        return f"the model has {total} layers, fewer than {pp} ranks"
    if min(split) < 1:
        empty = list(split).index(min(split))
        return f"the layer split {value} leaves rank {empty} without a layer"
    rank_of = [rank for rank, layers in enumerate(split) for _ in range(layers)]
    for layer, source in sorted(decoder.kv_sources.items()):
        if rank_of[layer] != rank_of[source]:
            return (
                f"layer {layer} (rank {rank_of[layer]}) shares the KV cache of "
                f"layer {source}, which is on rank {rank_of[source]}"
            )
    return None


def balanced_split(decoder: Decoder, pp: int) -> tuple[int, ...] | None:
    """Return the legal layer split nearest to balanced, or None if none is legal.

    Nearest: the smallest sum of squared layer counts; then the fewest layers moved against
    vLLM's own split; then the lighter early ranks, which also hold the embeddings.
    """
    tied = {
        end for layer, source in decoder.kv_sources.items() for end in range(source + 1, layer + 1)
    }
    ends = [end for end in range(1, decoder.layers + 1) if end not in tied]
    # The best split of the first `end` layers over the ranks so far, with its cost.
    best: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, 0, ())}
    for default in default_split(decoder.layers, pp):
        longer: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for start, (squares, moved, split) in best.items():
            for end in ends:
                if (size := end - start) > 0:
                    option = (squares + size**2, moved + abs(size - default), (*split, size))
                    longer[end] = min(longer.get(end, option), option)
        best = longer
    return best[decoder.layers][2] if decoder.layers in best else None


def as_value(split: Sequence[int]) -> str:
    """Write a layer split as vLLM's variable has it: `2,3,3`."""
    return ",".join(map(str, split))
