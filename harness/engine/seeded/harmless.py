"""Harmless changes: no check may notice them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from ..hooks.site import Site
from .alter import (
    Altered,
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


@harmless("the hooks are entered under stress", in_noise=True)
@harmless("the hooks are entered and change nothing", quick=True)
def _nothing(_site: Site) -> Altered:
    return nullcontext()


@harmless("keys are sent in another order", quick=True)
@on_send(0)
def _keys_reordered(_site: Site, tensors: Tensors) -> Tensors:
    return dict(reversed(tensors.items()))


@harmless("tensors are copied before they are sent")
@on_send(0)
@every_tensor
def _cloned_before_send(_site: Site, value: Tensor) -> Tensor:
    return value.clone()


@harmless("tensors are copied as they arrive")
@on_arrival(1)
@every_tensor
def _cloned_on_arrival(_site: Site, value: Tensor) -> Tensor:
    return value.clone()


@harmless("the model is given copies, stress", in_noise=True)
@harmless("the model is given copies")
@on_read(1)
@every_tensor
def _cloned_on_read(_site: Site, value: Tensor) -> Tensor:
    return value.clone()


@harmless("hidden_states go through float64 and back", quick=True)
@on_read(1)
@every_tensor
def _through_double(_site: Site, value: Tensor) -> Tensor:
    return value.double().to(value.dtype)


@harmless("tensors are flattened and shaped back")
@on_read(1)
@every_tensor
def _reshaped_on_read(_site: Site, value: Tensor) -> Tensor:
    return value.flatten().view(value.shape)


@harmless("a middle stage packs its output anew", pp=4)
@on_return(1)
@every_tensor
def _relay_rebuilt(_site: Site, value: Tensor) -> Tensor:
    return value * 1


@harmless("a weight is written with its own values")
@module_of_last_stage("model.norm")
def _weights_rewritten(norm: Any) -> Altered:
    return weight(norm.weight, lambda kept: kept.clone())


@harmless("the model has one attribute more")
@contextmanager
def _extra_attribute(site: Site) -> Iterator[None]:
    site.model.of_the_selftest = 1
    try:
        yield
    finally:
        del site.model.of_the_selftest


@harmless("layers carry a hook that only looks")
@on_layer_input(layers_of_later_stages)
def _extra_hook(_site: Site, args: list[Any]) -> None:
    args[1].norm()


@harmless("layers get copies of the positions")
@on_layer_input(layers_of_later_stages)
def _positions_copied(_site: Site, args: list[Any]) -> None:
    args[0] = args[0].clone()
