"""Building blocks of seeded changes: alter one thing on one rank for one step, and put it back.

A decorator makes a change of a function that says what becomes of a tensor, a module or the
arguments of a layer. What a hook of ours records is recorded after the alteration, as it would be
after a bug in vLLM at the same place.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any

from ..hooks.site import COPIES, Change, Site, altered_send, attribute

# What boundary keys and weights are; torch is not imported here.
Tensor = Any
Tensors = dict[str, Tensor]
# Says what becomes of the tensors at one place of a rank.
_Alter = Callable[[Tensors], Tensors]
# In effect for one step: a context of ours, or the handle of a hook of torch, which is one too.
Altered = AbstractContextManager[Any]
# Makes a change of a function that says what becomes of a tensor, a module or arguments.
Decorator = Callable[[Callable[..., Any]], Change]

HIDDEN, PLE = "hidden_states", "per_layer_inputs"


def all_of(alterations: Iterable[Altered]) -> Altered:
    """Alter several things for the same step."""
    stack = ExitStack()
    for altered in alterations:
        stack.enter_context(altered)
    return stack


# ---- modules and weights ----------------------------------------------------------------------


@contextmanager
def weight(tensor: Tensor, altered: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Give a weight the values `altered(weight)`, and its own bits back."""
    kept = tensor.detach().clone()
    tensor.data.copy_(altered(kept))
    try:
        yield
    finally:
        tensor.data.copy_(kept)


def weight_of_ones(tensor: Tensor) -> Altered:
    """Give a weight the values that it has before it is loaded."""
    return weight(tensor, lambda kept: kept.new_ones(kept.shape))


def identity(module: Any) -> Altered:
    """Let a module give back its first argument."""
    return attribute(module, "forward", lambda x, *_args, **_kwargs: x)


# ---- what crosses a boundary -----------------------------------------------------------------


def every_tensor(alter: Callable[[Site, Tensor], Tensor]) -> Callable[[Site, Tensors], Tensors]:
    """Alter the tensors of all keys, each by itself."""

    @wraps(alter)
    def of_all(site: Site, tensors: Tensors) -> Tensors:
        return {key: alter(site, value) for key, value in tensors.items()}

    return of_all


def _change(place: Callable[[Site, Any], Altered]) -> Decorator:
    """Make the decorator of functions that `place` applies to a rank."""

    def change_of(alter: Callable[..., Any]) -> Change:
        @wraps(alter)
        def change(site: Site) -> Altered:
            return place(site, alter)

        return change

    return change_of


def _crossing(place: Callable[[Site, _Alter], Altered]) -> Callable[..., Decorator]:
    """Let a place of a rank be named with a stage and a key: None alters all tensors together."""

    @wraps(place)
    def at(stage: int, key: str | None = None) -> Decorator:
        def at_stage(site: Site, alter: Any) -> Altered:
            if site.stage != stage:
                return nullcontext()
            if key is None:
                return place(site, lambda tensors: alter(site, tensors))
            return place(site, lambda tensors: {**tensors, key: alter(site, tensors[key])})

        return _change(at_stage)

    return at


on_send = _crossing(altered_send)


@_crossing
def on_return(site: Site, alter: _Alter) -> Altered:
    """Alter what the decoder of a stage returns for the next one."""

    def hook(_module: Any, _args: Any, output: Any) -> None:
        output.tensors = alter(dict(output.tensors))

    handle: Altered = site.model.register_forward_hook(hook, prepend=True)
    return handle


@_crossing
def on_arrival(site: Site, alter: _Alter) -> Altered:
    """Alter what arrives at a stage, before it is copied into the V1 runner's buffer."""
    name = next(name for name in COPIES if hasattr(site.runner, name))
    copy = getattr(site.runner, name)

    def altered_copy(num_tokens: int, given: Any, sync_self: bool) -> Any:
        given.tensors = alter(dict(given.tensors))
        return copy(num_tokens, given, sync_self)

    return attribute(site.runner, name, altered_copy)


@_crossing
def on_read(site: Site, alter: _Alter) -> Altered:
    """Alter what the model of a stage works with, after all has arrived as it was sent."""

    def hook(_module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given = next(value for value in (*args, *kwargs.values()) if hasattr(value, "tensors"))
        # Past the tracer's dictionary: that the model reads a key is still for it to note.
        for key, value in alter(dict(dict.items(given.tensors))).items():
            dict.__setitem__(given.tensors, key, value)

    # On the whole model: vLLM calls the decoder inside it past its hooks.
    handle: Altered = site.model.register_forward_pre_hook(hook, with_kwargs=True)
    return handle


# ---- layers and modules ----------------------------------------------------------------------


def layers_of_later_stages(site: Site) -> list[int]:
    """Absolute indices of this rank's layers; none on the first stage."""
    return sorted(site.layers) if site.stage > 0 else []


def first_layer(site: Site) -> list[int]:
    """The first layer of the model, on the stage that has it."""
    return [0] if site.stage == 0 else []


def on_layer_input(layers: Callable[[Site], Iterable[int]]) -> Decorator:
    """Alter, in place, the list of arguments of decoder layers: positions, hidden states, ..."""

    def place(site: Site, alter: Callable[[Site, list[Any]], None]) -> Altered:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            altered = list(args)
            alter(site, altered)
            return tuple(altered), kwargs

        return all_of(
            site.layers[index].register_forward_pre_hook(hook, with_kwargs=True)
            for index in layers(site)
        )

    return _change(place)


def on_layer_output(layer: int) -> Decorator:
    """Replace the output of a layer by a function of its hidden states and that output."""

    def alter_layer(module: Any, alter: Callable[[Tensor, Tensor], Tensor]) -> Altered:
        def hook(_module: Any, args: Any, output: Any) -> Any:
            return alter(args[1], output[0]), *output[1:]

        handle: Altered = module.register_forward_hook(hook, prepend=True)
        return handle

    return _of_layer(layer, alter_layer)


def module_of_layer(layer: int, path: str = "") -> Decorator:
    """Alter a module of one decoder layer, on the rank that has it."""
    return _of_layer(layer, lambda module, alter: alter(module.get_submodule(path)))


def parameter_of_layer(layer: int, name: str) -> Decorator:
    """Alter a parameter of one decoder layer, in whatever module of it a release keeps that."""

    def find(module: Any) -> Any:
        parameters = module.named_parameters()
        return next(value for path, value in parameters if path.rpartition(".")[2] == name)

    return _of_layer(layer, lambda module, alter: alter(find(module)))


def _of_layer(layer: int, alter_layer: Callable[[Any, Any], Altered]) -> Decorator:
    def place(site: Site, alter: Any) -> Altered:
        if layer not in site.layers:
            return nullcontext()
        return alter_layer(site.layers[layer], alter)

    return _change(place)


def module_of_last_stage(path: str) -> Decorator:
    """Alter a module of the model on the last stage."""

    def place(site: Site, alter: Callable[[Any], Altered]) -> Altered:
        if site.stage < site.stages - 1:
            return nullcontext()
        return alter(site.model.get_submodule(path))

    return _change(place)


# ---- rows of a step --------------------------------------------------------------------------


def rows_from(site: Site, position: int) -> list[int]:
    """Rows of the step at an absolute position or behind it."""
    return [row for row, (_, at) in enumerate(_positions(site)) if at >= position]


def decode_rows(site: Site) -> list[int]:
    """Rows of the step that continue a prompt."""
    return [row for row, (span, at) in enumerate(_positions(site)) if at >= span.prompt_length]


def _positions(site: Site) -> Iterator[tuple[Any, int]]:
    """Yield the span and the absolute position of each row of the step."""
    return ((span, at) for span in site.spans for at in span.positions)


def scaled(values: Tensor, rows: list[int], factor: float) -> Tensor:
    """A copy with some rows scaled."""
    values = values.clone()
    values[rows] *= factor
    return values


def of_step_before(site: Site, now: Tensor) -> Tensor:
    """The value of the step before, cut or filled up with zeros to this step's rows."""
    before = site.memory.get("before")
    site.memory["before"] = now.clone()
    stale = now.new_zeros(now.shape)
    if before is not None:
        count = min(len(before), len(now))
        stale[:count] = before[:count]
    return stale
