"""The contract of one class: what it declares, sends and reads on each kind of rank."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.lint.calls import splatted
from harness.lint.interp import Walker
from harness.lint.machine import Engine
from harness.lint.project import ClassRef, Module
from harness.lint.trace import Read, Role, Trace
from harness.lint.values import (
    UNKNOWN,
    Bound,
    Entry,
    Factory,
    Function,
    Inner,
    Instance,
    Null,
    Opaque,
    Payload,
    Received,
    Value,
    join,
    nullness,
    options_of,
    tags_of,
)

DECLARE = "make_empty_intermediate_tensors"


@dataclass(frozen=True)
class View:
    """What one rank does."""

    role: Role
    trace: Trace
    result: Value

    @property
    def sends(self) -> tuple[Payload, ...]:
        """The payloads that forward can return."""
        found = options_of(self.result)
        return tuple(o for o in found if isinstance(o, Payload) and o.packed)

    @property
    def passes_on(self) -> bool:
        """Does forward return what an inner model, unknown here, or the caller gave it?"""
        return any(
            isinstance(o, Received) or tags_of(o) & {"forwarded", "maybe-forwarded"}
            for o in options_of(self.result)
        )

    def reads_of(self, key: str) -> list[Read]:
        """The reads of a key."""
        return [read for read in self.trace.reads if matches(read.key, key)]


@dataclass(frozen=True)
class Declaration:
    """What `make_empty_intermediate_tensors` gives."""

    payload: Payload | None
    delegated: bool = False
    """An inner model, picked at run time, declares."""
    absent: bool = False
    """Nothing but the protocol's stub answers, which returns None."""
    none: bool = False
    """It is there and returns None."""


@dataclass(frozen=True)
class Stage:
    """The contract of a class over all ranks."""

    cls: ClassRef
    forward: ast.FunctionDef | ast.AsyncFunctionDef | None
    forward_owner: ClassRef | None
    views: Mapping[Role, View]
    declared: Declaration
    lineage: tuple[ClassRef, ...] = ()

    @property
    def later(self) -> tuple[View, View]:
        """The ranks that receive."""
        return self.views[Role.MIDDLE], self.views[Role.LAST]

    @property
    def senders(self) -> tuple[View, View]:
        """The ranks that send."""
        return self.views[Role.FIRST], self.views[Role.MIDDLE]

    @property
    def is_drafter(self) -> bool:
        """A speculative drafter takes the target's hidden states and runs on one rank only.

        vLLM wants the claim of it too, when the target runs with PP, but sends nothing between
        its ranks.
        """
        return self.forward is not None and any(
            name == "hidden_states" for name, _ in parameters(self.forward)
        )

    @property
    def sends_itself(self) -> bool:
        """Is the whole path known, down to the payload that is sent?"""
        return all(v.sends and not v.passes_on for v in self.senders)


def matches(one: str, two: str) -> bool:
    """Do two key patterns have a key in common? `*` stands for the computed part."""
    if one == two:
        return True
    if "*" not in one and "*" not in two:
        return False
    head_one, head_two = one.split("*")[0], two.split("*")[0]
    tail_one, tail_two = one.rsplit("*", 1)[-1], two.rsplit("*", 1)[-1]
    if "*" not in two:
        head_two, tail_two = two, two
    if "*" not in one:
        head_one, tail_one = one, one
    heads = head_one.startswith(head_two) or head_two.startswith(head_one)
    tails = tail_one.endswith(tail_two) or tail_two.endswith(tail_one)
    return heads and tails


def lookup(entries: Mapping[str, Entry], key: str) -> Entry | None:
    """The entry for a key (or pattern)."""
    if key in entries:
        return entries[key]
    for pattern, entry in entries.items():
        if matches(pattern, key):
            return entry
    return None


def parameters(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[str, ast.expr | None]]:
    """Names of the parameters behind self, with their defaults."""
    spec = function.args
    names = [*spec.posonlyargs, *spec.args]
    pad: list[ast.expr | None] = [None] * (len(names) - len(spec.defaults))
    pairs = [*zip(names, [*pad, *spec.defaults], strict=True)]
    pairs += zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    for argument, default in pairs:
        if argument.arg != "self":
            yield argument.arg, default


def forward_arguments(
    cls: ClassRef, function: ast.FunctionDef | ast.AsyncFunctionDef, role: Role
) -> dict[str, Value]:
    """What the model runner hands to forward on a rank."""
    given: dict[str, Value] = {"self": Instance(cls)}
    for name, default in parameters(function):
        if name == "intermediate_tensors":
            first = Opaque(Null.YES, frozenset({"it"}))
            given[name] = first if role is Role.FIRST else Received()
        elif name == "inputs_embeds" and role is not Role.FIRST:
            given[name] = Opaque(Null.YES, frozenset({"first-only:inputs_embeds"}))
        elif name in ("input_ids", "positions"):
            given[name] = Opaque(tags=frozenset({f"param:{name}"}))
        else:
            given[name] = splatted(name, default, role)
    for extra in (function.args.vararg, function.args.kwarg):
        if extra is not None:
            given[extra.arg] = Opaque(Null.NO)
    return given


def derive(engine: Engine, cls: ClassRef) -> Stage:
    """Walk a class's `__init__`, declaration and forward for every role.

    Raises:
        OutOfStepsError: The code is too long to follow.
    """
    engine.start()
    found = engine.project.find_method(cls, "forward")
    views: dict[Role, View] = {}
    for role in Role:
        trace = Trace(role)
        attributes = dict(engine.attributes(cls, role))
        result: Value = UNKNOWN
        if found is not None:
            owner, function = found
            walker = Walker(engine, trace, owner.module, cls, owner, 0)
            given = forward_arguments(cls, function, role)
            result, _ = engine.run(walker, function, owner, cls, given, attributes)
        views[role] = View(role, trace, result)
    forward_owner, forward = found if found is not None else (None, None)
    lineage = engine.project.lineage(cls).classes
    return Stage(cls, forward, forward_owner, views, _declaration(engine, cls), lineage)


def _declaration(engine: Engine, cls: ClassRef) -> Declaration:
    role = Role.MIDDLE
    value = engine.attributes(cls, role).get(f"self.{DECLARE}")
    trace = Trace(role)
    walker = Walker(engine, trace, cls.module, cls, cls, 0)
    if value is None:
        found = engine.project.find_method(cls, DECLARE)
        if found is None:
            return Declaration(None, absent=engine.is_closed(cls))
        value = Bound(Instance(cls), DECLARE)
    results = [_called(engine, walker, option) for option in options_of(value)]
    payloads = [r for r in results if isinstance(r, Payload)]
    if payloads and len(payloads) == len(results):
        merged = payloads[0]
        for other in payloads[1:]:
            merged = _widest(merged, other)
        return Declaration(merged)
    if results and all(nullness(r) is Null.YES for r in results):
        return Declaration(None, none=True)
    return Declaration(None, delegated=True)


def _widest(one: Payload, two: Payload) -> Payload:
    joined = join(one, two)
    assert isinstance(joined, Payload)
    return joined


def _called(engine: Engine, walker: Walker, value: Value) -> Value:
    match value:
        case Factory():
            return value.payload
        case Function() if not isinstance(value.node, ast.Lambda):
            result, _ = engine.run(
                walker,
                value.node,
                value.owner,
                walker.self_cls,
                dict(value.env),
                {},
                value.module,
            )
            return _first_payload(result)
        case Bound(owner=Instance() as owner):
            found = engine.project.find_method(owner.cls, value.name)
            inner = engine.attributes(owner.cls, walker.trace.role).get(f"self.{value.name}")
            if inner is not None:
                return _called(engine, walker, inner)
            if found is None:
                return UNKNOWN
            holder, method = found
            inside = Walker(
                engine, walker.trace, holder.module, owner.cls, holder, walker.depth + 1
            )
            attributes = dict(engine.attributes(owner.cls, walker.trace.role))
            given: dict[str, Value] = {"self": owner}
            given.update({name: Opaque(Null.NO) for name, _ in parameters(method)})
            result, _ = engine.run(inside, method, holder, owner.cls, given, attributes)
            return _first_payload(result)
        case Bound(owner=Inner()):
            return UNKNOWN
    return UNKNOWN


def _first_payload(value: Value) -> Value:
    """The payload among the options; None when that is all there is."""
    for option in options_of(value):
        if isinstance(option, Payload):
            return option
    return value


def owner_module(stage: Stage) -> Module:
    """The module that holds the class's forward."""
    return stage.forward_owner.module if stage.forward_owner is not None else stage.cls.module
