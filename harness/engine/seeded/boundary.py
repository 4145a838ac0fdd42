"""Faults of what crosses a boundary: what is returned, sent, copied and read."""

from contextlib import AbstractContextManager
from typing import Any

from ..hooks.site import Site
from ..settings import Profile
from .alter import (
    HIDDEN,
    PLE,
    Tensor,
    Tensors,
    attribute,
    decode_rows,
    of_step_before,
    on_arrival,
    on_read,
    on_return,
    on_send,
    rows_from,
    scaled,
    tensor,
)
from .declare import fault

# ---- keys that are lost, and keys that are not relayed ---------------------------------------


@fault(
    "key-not-read-in-noise",
    "dropped",
    "later stages never read per_layer_inputs, among noisy batches",
    profile=Profile.STRESS,
)
@fault("key-not-read", "dropped", "later stages never read per_layer_inputs", quick=True)
def _key_not_read(site: Site) -> AbstractContextManager[Any]:
    decoder = site.model.model
    width = decoder.hidden_size_per_layer_input if site.stage == 0 else 0
    return attribute(decoder, "hidden_size_per_layer_input", width)


@fault("key-not-sent", "dropped", "per_layer_inputs is not sent, its buffer is stale")
@on_send(0)
def _key_not_sent(_site: Site, tensors: Tensors) -> Tensors:
    return {key: value for key, value in tensors.items() if key != PLE}


@fault("not-relayed", "not relayed", "stage 1 of 4 does not pass PLE on", pp=4, stage=2, layer=4)
@on_return(1)
def _not_relayed(_site: Site, tensors: Tensors) -> Tensors:
    return {key: value for key, value in tensors.items() if key != PLE}


@fault(
    "relayed-as-zeros",
    "not relayed",
    "stage 1 of 4 passes zeros on for PLE",
    pp=4,
    stage=2,
    layer=4,
)
@on_return(1)
@tensor(PLE)
def _relayed_as_zeros(_site: Site, ple: Tensor) -> Tensor:
    return ple.clone().zero_()


# ---- the right numbers in the wrong place ----------------------------------------------------


@fault("ple-layers-swapped", "swapped", "PLE of layers 5 and 6 are exchanged")
@on_read(1)
@tensor(PLE)
def _ple_layers_swapped(_site: Site, ple: Tensor) -> Tensor:
    ple = ple.clone()
    ple[:, [5, 6]] = ple[:, [6, 5]]
    return ple


@fault("row-duplicated", "duplicated", "row 0 is sent in the place of row 1")
@on_send(0)
@tensor(HIDDEN)
def _row_duplicated(_site: Site, hidden: Tensor) -> Tensor:
    hidden = hidden.clone()
    if len(hidden) > 1:
        hidden[1] = hidden[0]
    return hidden


@fault("ple-duplicated", "duplicated", "every layer gets the PLE of layer 5", layer=6)
@on_read(1)
@tensor(PLE)
def _ple_duplicated(_site: Site, ple: Tensor) -> Tensor:
    return ple[:, 5:6].expand_as(ple)


@fault("ple-transposed", "transposed", "PLE arrives layers and width exchanged", quick=True)
@on_read(1)
@tensor(PLE)
def _ple_transposed(_site: Site, ple: Tensor) -> Tensor:
    return ple.mT.reshape(ple.shape)


@fault(
    "hidden-rows-reversed", "transposed", "rows of hidden_states reversed", model="dense", layer=4
)
@on_read(1)
@tensor(HIDDEN)
def _hidden_rows_reversed(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.flip(0)


@fault("ple-slice-off-by-one", "PLE slice", "layer i gets the PLE of layer i - 1", quick=True)
@on_read(1)
@tensor(PLE)
def _ple_slice_off_by_one(_site: Site, ple: Tensor) -> Tensor:
    return ple.roll(1, 1)


@fault("ple-slice-local", "PLE slice", "PLE is indexed from the stage's first layer")
@on_read(1)
@tensor(PLE)
def _ple_slice_local(_site: Site, ple: Tensor) -> Tensor:
    return ple.roll(5, 1)


@fault(
    "pp4-only",
    "PP=4 only",
    "stage 3 of 4 reads hidden_states one element off",
    pp=4,
    stage=3,
    layer=6,
)
@on_read(3)
@tensor(HIDDEN)
def _pp4_only(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.roll(1, -1)


# ---- the numbers of another step or request --------------------------------------------------


@fault("hidden-stale", "stale", "hidden_states are those of the step before", quick=True)
@on_read(1)
@tensor(HIDDEN)
def _hidden_stale(site: Site, hidden: Tensor) -> Tensor:
    return of_step_before(site, hidden)


@fault("ple-stale-in-decode", "stale", "decode reads per_layer_inputs of the step before")
@on_read(1)
@tensor(PLE)
def _ple_stale_in_decode(site: Site, ple: Tensor) -> Tensor:
    stale, rows = of_step_before(site, ple), decode_rows(site)
    ple = ple.clone()
    ple[rows] = stale[rows]
    return ple


@fault(
    "requests-swapped-in-noise",
    "micro-batches",
    "two requests of a noisy batch get each other's rows",
    profile=Profile.STRESS,
)
@fault("requests-swapped", "micro-batches", "two requests of a batch get each other's rows")
@on_read(1)
@tensor(HIDDEN)
def _requests_swapped(site: Site, hidden: Tensor) -> Tensor:
    if len(site.spans) < 2:
        return hidden
    first, second = site.spans[:2]
    count = min(first.count, second.count)
    other = slice(first.count, first.count + count)
    swapped = hidden.clone()
    swapped[:count], swapped[other] = hidden[other], hidden[:count]
    return swapped


@fault("batch-of-step-before", "micro-batches", "a batch reads the rows of the one before")
@on_read(1)
@tensor(HIDDEN)
def _batch_of_step_before(site: Site, hidden: Tensor) -> Tensor:
    stale = of_step_before(site, hidden)
    return stale if len(site.spans) > 1 else hidden


# ---- other dtypes, other values --------------------------------------------------------------


@fault("downcast-on-read", "down-cast", "hidden_states rounded to bfloat16 once read", fine=True)
@on_read(1)
@tensor(HIDDEN)
def _downcast_on_read(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.bfloat16().to(hidden.dtype)


@fault("downcast-on-wire", "down-cast", "hidden_states sent as bfloat16", quick=True, fine=True)
@on_send(0)
@tensor(HIDDEN)
def _downcast_on_wire(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.bfloat16()


@fault(
    "upcast-on-wire",
    "up-cast",
    "hidden_states sent as float64: the same numbers in twice the bytes",
    quick=True,
    stage=None,
    layer=None,
)
@on_send(0)
@tensor(HIDDEN)
def _upcast_on_wire(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.double()


@fault("embed-scale-on-receive", "embedding scale", "stage 1 scales hidden_states again")
@on_read(1)
@tensor(HIDDEN)
def _embed_scale_on_receive(_site: Site, hidden: Tensor) -> Tensor:
    return hidden * hidden.shape[-1] ** 0.5


@fault("mutated-before-send", "mutated", "hidden_states change between return and send")
@on_send(0)
@tensor(HIDDEN)
def _mutated_before_send(_site: Site, hidden: Tensor) -> Tensor:
    return hidden + 0.01


@fault("mutated-in-flight", "mutated", "hidden_states change between send and receive", quick=True)
@on_arrival(1)
@tensor(HIDDEN)
def _mutated_in_flight(_site: Site, hidden: Tensor) -> Tensor:
    return hidden * 1.01


@fault(
    "one-ulp-in-noise",
    "one ULP",
    "the same among batches whose logits are noisy anyway",
    profile=Profile.STRESS,
    layer=None,
)
@fault("one-ulp", "one ULP", "one element arrives one ULP off")
@on_arrival(1)
@tensor(HIDDEN)
def _one_ulp(_site: Site, hidden: Tensor) -> Tensor:
    hidden = hidden.clone()
    hidden[0, 0] = hidden[0, 0].nextafter(hidden.new_full((), float("inf")))
    return hidden


# ---- only at some positions, only in some batches --------------------------------------------


@fault("long-context-only", "long context", "no PLE from position 64 on", quick=True)
@on_read(1)
@tensor(PLE)
def _long_context_only(site: Site, ple: Tensor) -> Tensor:
    return scaled(ple, rows_from(site, 64), 0.0)


@fault("past-position-300", "long context", "hidden_states scaled from position 300 on")
@on_read(1)
@tensor(HIDDEN)
def _past_position_300(site: Site, hidden: Tensor) -> Tensor:
    return scaled(hidden, rows_from(site, 300), 1.01)


@fault(
    "decode-only-in-noise",
    "decode only",
    "hidden_states scaled by 1.001 in decode, among noisy batches",
    profile=Profile.STRESS,
    fine=True,
)
@fault(
    "decode-only", "decode only", "hidden_states scaled by 1.001 in decode", quick=True, fine=True
)
@on_read(1)
@tensor(HIDDEN)
def _decode_only(site: Site, hidden: Tensor) -> Tensor:
    return scaled(hidden, decode_rows(site), 1.001)


@fault("first-row-of-batch", "decode only", "the first of several decode rows is scaled")
@on_read(1)
@tensor(HIDDEN)
def _first_row_of_batch(site: Site, hidden: Tensor) -> Tensor:
    rows = decode_rows(site)
    return scaled(hidden, rows[:1] if len(rows) > 1 else [], 1.01)


@fault("three-in-decode", "decode only", "a decode batch of exactly three is scaled")
@on_read(1)
@tensor(HIDDEN)
def _three_in_decode(site: Site, hidden: Tensor) -> Tensor:
    rows = decode_rows(site)
    return scaled(hidden, rows if len(rows) == 3 else [], 1.01)


@fault(
    "large-batch-only",
    "large batch",
    "decode batches of more than eight, which no probe has, read zeros",
    stage=None,
    layer=None,
)
@on_read(1)
@tensor(HIDDEN)
def _large_batch_only(site: Site, hidden: Tensor) -> Tensor:
    rows = decode_rows(site)
    return scaled(hidden, rows if len(rows) > 8 else [], 0.0)
