"""Arguments of a call, and what the parameters of a function hold when it starts."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.lint.trace import Role
from harness.lint.tree import Function, defaults_of, is_none, parameter_names
from harness.lint.values import (
    NO_TAGS,
    UNKNOWN,
    ClassValue,
    Const,
    Env,
    Instance,
    Null,
    Opaque,
    Partial,
    Payload,
    Received,
    Value,
    options_of,
    tags_of,
)


@dataclass(eq=False)
class Arguments:
    """The evaluated arguments of a call, which nobody changes: one is made for each call."""

    node: ast.Call
    args: list[Value]
    keywords: dict[str, Value]
    splats: tuple[Value, ...] = ()
    """Values spread with `**` whose keys are not known."""
    spread: bool = False
    """Are there arguments that the code does not list?"""

    def __post_init__(self) -> None:
        """Put together every value that is passed, and the origins of all of them."""
        self.all: tuple[Value, ...] = (*self.args, *self.keywords.values(), *self.splats)
        self.tags: frozenset[str] = NO_TAGS.union(*map(tags_of, self.all))

    @property
    def passes_received(self) -> bool:
        """Is the incoming IntermediateTensors among them?"""
        return "it" in self.tags

    @property
    def passes_sent(self) -> bool:
        """Is what an inner model sends among them?"""
        return any(
            (isinstance(option, Payload) and option.packed)
            or tags_of(option) & {"forwarded", "maybe-forwarded"}
            for value in self.all
            for option in options_of(value)
        )


def bind(
    function: Function | ast.Lambda,
    given: Arguments,
    self_value: Value | None,
    role: Role,
    evaluate: Callable[[ast.expr], Value],
) -> Env:
    """Parameter names to values; what is not given takes its default."""
    spec = function.args
    positional = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    values = list(given.args)
    if self_value is not None and positional:
        values.insert(0, self_value)
    bound: Env = dict(zip(positional, values, strict=False))
    names = parameter_names(function)
    bound.update({name: value for name, value in given.keywords.items() if name in names})
    defaults = defaults_of(function)
    for name in names:
        if name in bound:
            continue
        default = defaults.get(name)
        if given.spread or is_none(default):
            bound[name] = not_given(name, default, role)
        else:
            bound[name] = evaluate(default) if default is not None else UNKNOWN
    return bound


def not_given(name: str, default: ast.expr | None, role: Role) -> Value:
    """A parameter that the runner or an outer wrapper fills, or not.

    Later ranks get positions and intermediate_tensors (the V1 runner also gives input_ids);
    everything optional is computed from the inputs, which only the first rank has.
    """
    if not is_none(default):
        return UNKNOWN
    if role is Role.FIRST:
        return Opaque(tags=frozenset({f"input:{name}"}))
    return Opaque(Null.YES, frozenset({f"first-only:{name}"}))


def from_runner(self_value: Instance, forward: Function, role: Role) -> Env:
    """The model runner hands these arguments to forward on a rank."""
    given: Env = {}
    defaults = defaults_of(forward)
    for name in parameter_names(forward):
        if name == "self":
            given[name] = self_value
        elif name == "intermediate_tensors":
            first = Opaque(Null.YES, frozenset({"it"}))
            given[name] = first if role is Role.FIRST else Received()
        elif name == "inputs_embeds" and role is not Role.FIRST:
            given[name] = Opaque(Null.YES, frozenset({"first-only:inputs_embeds"}))
        elif name in ("input_ids", "positions"):
            given[name] = Opaque(tags=frozenset({f"param:{name}"}))
        else:
            default = defaults.get(name)
            if isinstance(default, ast.Constant) and isinstance(default.value, bool):
                # The runner knows nothing of a model's own switches.
                given[name] = Const(default.value)
            else:
                given[name] = not_given(name, default, role)
    return given


def switches(constructor: Function) -> Iterator[tuple[str, ast.expr]]:
    """Parameters whose default is True, False or a name, which may be a class."""
    for name, default in defaults_of(constructor).items():
        if isinstance(default, ast.Name) or (
            isinstance(default, ast.Constant) and isinstance(default.value, bool)
        ):
            yield name, default


def options_given(constructor: Function, given: Arguments) -> tuple[tuple[str, Value], ...]:
    """The arguments of a constructor that decide what it builds: switches and classes.

    A switch that is given something else than a literal is not known.
    """
    names = parameter_names(constructor)[1:]
    values = {**dict(zip(names, given.args, strict=False)), **given.keywords}
    open_switches = {
        name: UNKNOWN for name, _ in switches(constructor) if given.spread or name in values
    }
    options = {n: v for n, v in values.items() if n in names and _is_option(v)}
    return tuple(sorted({**open_switches, **options}.items(), key=lambda item: item[0]))


def _is_option(value: Value) -> bool:
    return isinstance(value, ClassValue | Partial) or (
        isinstance(value, Const) and isinstance(value.value, bool)
    )
