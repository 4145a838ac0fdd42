"""Harmless changes: no check may notice them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ..hooks.site import Site
from ..settings import Profile
from .alter import (
    Tensor,
    Tensors,
    every_tensor,
    layers_of_later_stages,
    module_of_last_stage,
    on_arrival,
    on_layer_input,
    on_read,
    on_return,
    on_send,
    weight,
)
from .declare import harmless


@harmless("nothing-in-noise", "the hooks are entered under stress", profile=Profile.STRESS)
@harmless("nothing", "the hooks are entered and change nothing", quick=True)
def _nothing(_site: Site) -> AbstractContextManager[None]:
    return nullcontext()


@harmless("keys-reordered", "keys are sent in another order", quick=True)
@on_send(0)
def _keys_reordered(_site: Site, tensors: Tensors) -> Tensors:
    return dict(reversed(tensors.items()))


@harmless("cloned-before-send", "tensors are copied before they are sent")
@on_send(0)
@every_tensor
def _cloned_before_send(_site: Site, value: Tensor) -> Tensor:
    return value.clone()


@harmless("cloned-on-arrival", "tensors are copied as they arrive")
@on_arrival(1)
@every_tensor
def _cloned_on_arrival(_site: Site, value: Tensor) -> Tensor:
    return value.clone()


@harmless("cloned-on-read-in-noise", "the model is given copies, stress", profile=Profile.STRESS)
@harmless("cloned-on-read", "the model is given copies")
@on_read(1)
@every_tensor
def _cloned_on_read(_site: Site, value: Tensor) -> Tensor:
    return value.clone()


@harmless("through-double", "hidden_states go through float64 and back", quick=True)
@on_read(1)
@every_tensor
def _through_double(_site: Site, value: Tensor) -> Tensor:
    return value.double().to(value.dtype)


@harmless("reshaped-on-read", "tensors are flattened and shaped back")
@on_read(1)
@every_tensor
def _reshaped_on_read(_site: Site, value: Tensor) -> Tensor:
    return value.flatten().view(value.shape)


@harmless("relay-rebuilt", "a middle stage packs its output anew", pp=4)
@on_return(1)
@every_tensor
def _relay_rebuilt(_site: Site, value: Tensor) -> Tensor:
    return value * 1


@harmless("weights-rewritten", "a weight is written with its own values")
@module_of_last_stage("model.norm")
def _weights_rewritten(norm: Any) -> AbstractContextManager[None]:
    return weight(norm.weight, lambda kept: kept.clone())


@harmless("extra-attribute", "the model has one attribute more")
@contextmanager
def _extra_attribute(site: Site) -> Iterator[None]:
    site.model.of_the_selftest = 1
    try:
        yield
    finally:
        del site.model.of_the_selftest


@harmless("extra-hook", "layers carry a hook that only looks")
@on_layer_input(layers_of_later_stages)
def _extra_hook(_site: Site, args: list[Any]) -> None:
    args[1].norm()


@harmless("positions-copied", "layers get copies of the positions")
@on_layer_input(layers_of_later_stages)
def _positions_copied(_site: Site, args: list[Any]) -> None:
    args[0] = args[0].clone()
