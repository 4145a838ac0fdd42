"""The contract of one class: what it declares, sends and reads on each kind of rank."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from harness.lint.binding import from_runner
from harness.lint.engine import Engine
from harness.lint.interpreter import Walker
from harness.lint.project import ClassRef, Module
from harness.lint.trace import Read, Role, Trace
from harness.lint.tree import Function, parameter_names, walk
from harness.lint.values import (
    UNKNOWN,
    Bound,
    Closure,
    Entry,
    Factory,
    Instance,
    Null,
    Opaque,
    Payload,
    Received,
    Value,
    joined,
    nullness,
    options_of,
    tags_of,
)

DECLARE = "make_empty_intermediate_tensors"


@dataclass(frozen=True)
class View:
    """The walk of forward as one rank runs it."""

    role: Role
    trace: Trace
    result: Value

    @property
    def sends(self) -> tuple[Payload, ...]:
        """The payloads that forward can return."""
        options = options_of(self.result)
        return tuple(o for o in options if isinstance(o, Payload) and o.packed)

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
    """The receive buffers that `make_empty_intermediate_tensors` gives."""

    payload: Payload | None
    """None where nothing declares, or an inner model does that is picked at run time."""
    absent: bool = False
    """Nothing but the protocol's stub answers, which returns None."""
    none: bool = False
    """It is there and returns None."""


@dataclass(frozen=True)
class Stage:
    """The contract of a class over all ranks."""

    instance: Instance
    forward: Function | None
    forward_owner: ClassRef | None
    views: Mapping[Role, View]
    declared: Declaration
    lineage: tuple[ClassRef, ...] = ()

    @property
    def cls(self) -> ClassRef:
        """The class."""
        return self.instance.cls

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
        return self.forward is not None and "hidden_states" in parameter_names(self.forward)

    @property
    def sends_itself(self) -> bool:
        """Is the whole path known, down to the payload that is sent?"""
        return all(v.sends and not v.passes_on for v in self.senders)


def matches(pattern: str, other: str) -> bool:
    """Do two key patterns have a key in common? `*` stands for the computed part."""
    if "*" not in pattern and "*" not in other:
        return pattern == other
    head, tail = _ends(pattern)
    other_head, other_tail = _ends(other)
    heads = head.startswith(other_head) or other_head.startswith(head)
    tails = tail.endswith(other_tail) or other_tail.endswith(tail)
    return heads and tails


def _ends(pattern: str) -> tuple[str, str]:
    """The text before the first `*` and behind the last one; all of it where there is none."""
    return pattern.split("*")[0], pattern.rsplit("*", 1)[-1]


def lookup(entries: Mapping[str, Entry], key: str) -> Entry | None:
    """The entry for a key (or pattern)."""
    likely = (entry for pattern, entry in entries.items() if matches(pattern, key))
    return entries.get(key) or next(likely, None)


def derive(engine: Engine, cls: ClassRef) -> Stage:
    """Walk a class's `__init__`, declaration and forward for every role.

    Raises:
        OutOfStepsError: The code is too long to follow.
    """
    engine.start()
    instance = Instance(cls)
    definition = engine.project.find_method(cls, "forward")
    views: dict[Role, View] = {}
    for role in Role:
        trace = Trace(role)
        attributes = dict(engine.attributes(instance, role))
        result: Value = UNKNOWN
        if definition is not None:
            owner, function = definition
            walker = Walker(engine, trace, owner.module, instance, owner)
            given = from_runner(instance, function, role)
            result, _ = walker.run(function, owner, instance, given, attributes)
        views[role] = View(role, trace, result)
    forward_owner, forward = definition if definition is not None else (None, None)
    lineage = engine.project.lineage(cls).classes
    return Stage(instance, forward, forward_owner, views, _declaration(engine, instance), lineage)


def _declaration(engine: Engine, instance: Instance) -> Declaration:
    role = Role.MIDDLE
    cls = instance.cls
    value = engine.attributes(instance, role).get(f"self.{DECLARE}")
    walker = Walker(engine, Trace(role), cls.module, instance, cls)
    if value is None:
        if engine.project.find_method(cls, DECLARE) is None:
            return Declaration(None, absent=engine.is_closed(cls))
        value = Bound(instance, DECLARE)
    results = [_called(engine, walker, option) for option in options_of(value)]
    payloads = [r for r in results if isinstance(r, Payload)]
    if payloads and len(payloads) == len(results):
        merged = joined(payloads)
        assert isinstance(merged, Payload)
        return Declaration(merged)
    if results and all(nullness(r) is Null.YES for r in results):
        return Declaration(None, none=True)
    return Declaration(None)


def _called(engine: Engine, walker: Walker, value: Value) -> Value:
    match value:
        case Factory():
            return value.payload
        case Opaque(null=Null.YES):
            return value
        case Closure() if not isinstance(value.node, ast.Lambda):
            result, _ = walker.run(
                value.node, value.owner, walker.self_value, dict(value.env), {}, value.module
            )
            return _first_payload(result)
        case Bound(owner=Instance() as owner):
            inner = engine.attributes(owner, walker.trace.role).get(f"self.{value.name}")
            if inner is not None:
                return _called(engine, walker, inner)
            definition = engine.project.find_method(owner.cls, value.name)
            if definition is None:
                return UNKNOWN
            holder, method = definition
            attributes = dict(engine.attributes(owner, walker.trace.role))
            given = {name: Opaque(Null.NO) for name in parameter_names(method)}
            result, _ = walker.run(method, holder, owner, {**given, "self": owner}, attributes)
            return _first_payload(result)
    return UNKNOWN


def _first_payload(value: Value) -> Value:
    """The payload among the options; None when that is all there is."""
    return next((option for option in options_of(value) if isinstance(option, Payload)), value)


def owner_module(stage: Stage) -> Module:
    """The module that holds the class's forward."""
    return stage.forward_owner.module if stage.forward_owner is not None else stage.cls.module


def asserts_start(module: Module) -> bool:
    """Does the file check where the first layer of a later rank is?"""
    if ("asserts start",) not in module.memo:
        tests = (
            node.test
            for node in walk(module.tree)
            if isinstance(node, ast.Assert)
            or (isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise))
        )
        asserts = any("start_layer" in ast.unparse(test) for test in tests)
        module.memo["asserts start",] = asserts
    return bool(module.memo["asserts start",])
