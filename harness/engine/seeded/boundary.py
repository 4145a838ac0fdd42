"""Faults of what crosses a boundary: what is returned, sent, copied and read."""

from ..hooks.site import Site, attribute
from .alter import (
    HIDDEN,
    PLE,
    Altered,
    Tensor,
    Tensors,
    decode_rows,
    of_step_before,
    on_arrival,
    on_read,
    on_return,
    on_send,
    rows_from,
    scaled,
)
from .declare import fault

# ---- keys that are lost, and keys that are not relayed ---------------------------------------


@fault("dropped", "later stages never read per_layer_inputs, among noisy batches", in_noise=True)
@fault("dropped", "later stages never read per_layer_inputs", quick=True)
def _key_not_read(site: Site) -> Altered:
    decoder = site.model.model
    width = decoder.hidden_size_per_layer_input if site.stage == 0 else 0
    return attribute(decoder, "hidden_size_per_layer_input", width)


@fault("dropped", "per_layer_inputs is not sent, its buffer is stale")
@on_send(0)
def _key_not_sent(_site: Site, tensors: Tensors) -> Tensors:
    return {key: value for key, value in tensors.items() if key != PLE}


@fault("not relayed", "stage 1 of 4 does not pass PLE on", pp=4, stage=2, layer=4)
@on_return(1)
def _not_relayed(_site: Site, tensors: Tensors) -> Tensors:
    return {key: value for key, value in tensors.items() if key != PLE}


@fault("not relayed", "stage 1 of 4 passes zeros on for PLE", pp=4, stage=2, layer=4)
@on_return(1, PLE)
def _relayed_as_zeros(_site: Site, ple: Tensor) -> Tensor:
    return ple.clone().zero_()


# ---- the right numbers in the wrong place ----------------------------------------------------


@fault("swapped", "PLE of layers 5 and 6 are exchanged")
@on_read(1, PLE)
def _ple_layers_swapped(_site: Site, ple: Tensor) -> Tensor:
    ple = ple.clone()
    ple[:, [5, 6]] = ple[:, [6, 5]]
    return ple


@fault("duplicated", "row 0 is sent in the place of row 1")
@on_send(0, HIDDEN)
def _row_duplicated(_site: Site, hidden: Tensor) -> Tensor:
    hidden = hidden.clone()
    if len(hidden) > 1:
        hidden[1] = hidden[0]
    return hidden


@fault("duplicated", "every layer gets the PLE of layer 5", layer=6)
@on_read(1, PLE)
def _ple_duplicated(_site: Site, ple: Tensor) -> Tensor:
    return ple[:, 5:6].expand_as(ple)


@fault("transposed", "PLE arrives layers and width exchanged", quick=True)
@on_read(1, PLE)
def _ple_transposed(_site: Site, ple: Tensor) -> Tensor:
    return ple.mT.reshape(ple.shape)


@fault("transposed", "rows of hidden_states reversed", model="dense", layer=4)
@on_read(1, HIDDEN)
def _hidden_rows_reversed(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.flip(0)


@fault("PLE slice", "layer i gets the PLE of layer i - 1", quick=True)
@on_read(1, PLE)
def _ple_slice_off_by_one(_site: Site, ple: Tensor) -> Tensor:
    return ple.roll(1, 1)


@fault("PLE slice", "PLE is indexed from the stage's first layer")
@on_read(1, PLE)
def _ple_slice_local(_site: Site, ple: Tensor) -> Tensor:
    return ple.roll(5, 1)


@fault("PP=4 only", "stage 3 of 4 reads hidden_states one element off", pp=4, stage=3, layer=6)
@on_read(3, HIDDEN)
def _pp4_only(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.roll(1, -1)


# ---- the numbers of another step or request --------------------------------------------------


@fault("stale", "hidden_states are those of the step before", quick=True)
@on_read(1, HIDDEN)
def _hidden_stale(site: Site, hidden: Tensor) -> Tensor:
    return of_step_before(site, hidden)


@fault("stale", "decode reads per_layer_inputs of the step before")
@on_read(1, PLE)
def _ple_stale_in_decode(site: Site, ple: Tensor) -> Tensor:
    stale, rows = of_step_before(site, ple), decode_rows(site)
    ple = ple.clone()
    ple[rows] = stale[rows]
    return ple


@fault("micro-batches", "two requests of a noisy batch get each other's rows", in_noise=True)
@fault("micro-batches", "two requests of a batch get each other's rows")
@on_read(1, HIDDEN)
def _requests_swapped(site: Site, hidden: Tensor) -> Tensor:
    if len(site.spans) < 2:
        return hidden
    first, second = site.spans[:2]
    count = min(first.count, second.count)
    other = slice(first.count, first.count + count)
    swapped = hidden.clone()
    swapped[:count], swapped[other] = hidden[other], hidden[:count]
    return swapped


@fault("micro-batches", "a batch reads the rows of the one before")
@on_read(1, HIDDEN)
def _batch_of_step_before(site: Site, hidden: Tensor) -> Tensor:
    stale = of_step_before(site, hidden)
    return stale if len(site.spans) > 1 else hidden


# ---- other dtypes, other values --------------------------------------------------------------


@fault("down-cast", "hidden_states rounded to bfloat16 once read", fine=True)
@on_read(1, HIDDEN)
def _downcast_on_read(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.bfloat16().to(hidden.dtype)


@fault("down-cast", "hidden_states sent as bfloat16", quick=True, fine=True)
@on_send(0, HIDDEN)
def _downcast_on_wire(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.bfloat16()


@fault(
    "up-cast",
    "hidden_states sent as float64: the same numbers in twice the bytes",
    quick=True,
    stage=None,
    layer=None,
)
@on_send(0, HIDDEN)
def _upcast_on_wire(_site: Site, hidden: Tensor) -> Tensor:
    return hidden.double()


@fault("embedding scale", "stage 1 scales hidden_states again")
@on_read(1, HIDDEN)
def _embed_scale_on_receive(_site: Site, hidden: Tensor) -> Tensor:
    return hidden * hidden.shape[-1] ** 0.5


@fault("mutated", "hidden_states change between return and send")
@on_send(0, HIDDEN)
def _mutated_before_send(_site: Site, hidden: Tensor) -> Tensor:
    return hidden + 0.01


@fault("mutated", "hidden_states change between send and receive", quick=True)
@on_arrival(1, HIDDEN)
def _mutated_in_flight(_site: Site, hidden: Tensor) -> Tensor:
    return hidden * 1.01


@fault("one ULP", "the same among batches whose logits are noisy anyway", in_noise=True, layer=None)
@fault("one ULP", "one element arrives one ULP off")
@on_arrival(1, HIDDEN)
def _one_ulp(_site: Site, hidden: Tensor) -> Tensor:
    hidden = hidden.clone()
    hidden[0, 0] = hidden[0, 0].nextafter(hidden.new_full((), float("inf")))
    return hidden


# ---- only at some positions, only in some batches --------------------------------------------


@fault("long context", "no PLE from position 64 on", quick=True)
@on_read(1, PLE)
def _long_context_only(site: Site, ple: Tensor) -> Tensor:
    return scaled(ple, rows_from(site, 64), 0.0)


@fault("long context", "hidden_states scaled from position 300 on")
@on_read(1, HIDDEN)
def _past_position_300(site: Site, hidden: Tensor) -> Tensor:
    return scaled(hidden, rows_from(site, 300), 1.01)


@fault(
    "decode only",
    "hidden_states scaled by 1.001 in decode, among noisy batches",
    in_noise=True,
    fine=True,
)
@fault("decode only", "hidden_states scaled by 1.001 in decode", quick=True, fine=True)
@on_read(1, HIDDEN)
def _decode_only(site: Site, hidden: Tensor) -> Tensor:
    return scaled(hidden, decode_rows(site), 1.001)


@fault("decode only", "the first of several decode rows is scaled")
@on_read(1, HIDDEN)
def _first_row_of_batch(site: Site, hidden: Tensor) -> Tensor:
    rows = decode_rows(site)
    return scaled(hidden, rows[:1] if len(rows) > 1 else [], 1.01)


@fault("decode only", "a decode batch of exactly three is scaled")
@on_read(1, HIDDEN)
def _three_in_decode(site: Site, hidden: Tensor) -> Tensor:
    rows = decode_rows(site)
    return scaled(hidden, rows if len(rows) == 3 else [], 1.01)


@fault(
    "large batch",
    "decode batches of 9 to 23, which no probe has, read zeros",
    stage=None,
    layer=None,
)
@on_read(1, HIDDEN)
def _large_batch_only(site: Site, hidden: Tensor) -> Tensor:
    rows = decode_rows(site)
    return scaled(hidden, rows if 8 < len(rows) < 24 else [], 0.0)
