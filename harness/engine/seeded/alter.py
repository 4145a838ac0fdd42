"""Building blocks of faults: alter one thing on one rank for one step, and put it back.

Each is a context manager around a step. What a hook of ours records is recorded after the
alteration, as it would be after a bug in vLLM at the same place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..hooks.changes import Site

Tensors = dict[str, Any]


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give `owner` another value of an attribute."""
    had = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def weight(tensor: Any, alter: Callable[[Any], Any]) -> Iterator[None]:
    """Give a weight other values, and its own bits back."""
    kept = tensor.detach().clone()
    tensor.data.copy_(alter(kept))
    try:
        yield
    finally:
        tensor.data.copy_(kept)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def on_return(site: Site, stage: int, alter: Callable[[Tensors], Tensors]) -> Any:
    """Alter what the decoder of a stage returns for the next one."""
    if site.stage != stage:
        return _nothing()

    def hook(_module: Any, _args: Any, output: Any) -> None:
        output.tensors = alter(dict(output.tensors))

    return _hooked(site.model.register_forward_hook(hook, prepend=True))


def on_send(site: Site, stage: int, alter: Callable[[Tensors], Tensors]) -> Any:
    """Alter what leaves a stage, after its model has returned it."""
    if site.stage != stage:
        return _nothing()
    send = site.group.isend_tensor_dict

    def isend_tensor_dict(tensors: Tensors, *args: Any, **kwargs: Any) -> Any:
        return send(alter(dict(tensors)), *args, **kwargs)

    return attribute(site.group, "isend_tensor_dict", isend_tensor_dict)


def on_arrival(site: Site, stage: int, alter: Callable[[Tensors], Tensors]) -> Any:
    """Alter what arrives at a stage, before it is copied into the V1 runner's buffer."""
    if site.stage != stage:
        return _nothing()
    copy = site.runner.sync_and_slice_intermediate_tensors

    def sync_and_slice(num_tokens: int, given: Any, sync_self: bool) -> Any:
        given.tensors = alter(dict(given.tensors))
        return copy(num_tokens, given, sync_self)

    return attribute(site.runner, "sync_and_slice_intermediate_tensors", sync_and_slice)


def on_read(site: Site, stage: int, alter: Callable[[Tensors], Tensors]) -> Any:
    """Alter what the model of a stage works with, after all has arrived as it was sent."""
    if site.stage != stage:
        return _nothing()

    def hook(_module: Any, args: Any, kwargs: Tensors) -> None:
        given = next(one for one in (*args, *kwargs.values()) if hasattr(one, "tensors"))
        # Past the tracer's dictionary: that the model reads a key is still for it to note.
        altered = alter(dict(dict.items(given.tensors)))
        for key, value in altered.items():
            dict.__setitem__(given.tensors, key, value)

    # On the whole model: vLLM calls the decoder inside it past its hooks.
    return _hooked(site.model.register_forward_pre_hook(hook, with_kwargs=True))


def on_layer_input(site: Site, layers: range, alter: Callable[[list[Any], Tensors], None]) -> Any:
    """Alter the arguments of decoder layers, in place: positions, hidden states, residual."""

    def hook(_module: Any, args: Any, kwargs: Tensors) -> Any:
        changed, named = list(args), dict(kwargs)
        alter(changed, named)
        return tuple(changed), named

    return _hooked(
        *(
            module.register_forward_pre_hook(hook, with_kwargs=True)
            for index, module in site.layers.items()
            if index in layers
        )
    )


def on_layer_output(site: Site, layer: int, alter: Callable[[Any, Any], Any]) -> Any:
    """Replace the output of a decoder layer by `alter(its hidden states, its output)`."""
    if layer not in site.layers:
        return _nothing()

    def hook(_module: Any, args: Any, output: Any) -> Any:
        return alter(args[1], output[0]), *output[1:]

    return _hooked(site.layers[layer].register_forward_hook(hook, prepend=True))


@contextmanager
def _hooked(*handles: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rows(site: Site, wanted: Callable[[Any, int], bool]) -> list[int]:
    """Return the rows of the step for which `wanted(span, position)` holds."""
    positions = [(span, span.start + offset) for span in site.spans for offset in range(span.count)]
    return [row for row, (span, position) in enumerate(positions) if wanted(span, position)]


def decoding(site: Site) -> list[int]:
    """Return the rows of the step that continue a prompt."""
    return rows(site, lambda span, position: position >= span.prompt_length)
