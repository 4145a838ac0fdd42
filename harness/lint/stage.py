"""The contract of one class: its modules, and what it declares, sends and reads on each rank."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from harness.lint.binding import from_runner
from harness.lint.engine import Engine
from harness.lint.interpreter import Walker
from harness.lint.project import ClassRef, Lineage, Module, Spot
from harness.lint.report import Finding
from harness.lint.rules import finding
from harness.lint.trace import Read, Role, Trace
from harness.lint.tree import KEPT, Function, find, parameter_names
from harness.lint.values import (
    UNKNOWN,
    Entry,
    Instance,
    Layers,
    Null,
    Opaque,
    Payload,
    Received,
    Value,
    joined,
    kinds,
    nullness,
    options_of,
    tags_of,
)

DECLARE = "make_empty_intermediate_tensors"
_DEEP = 3
_CALL = ast.parse(f"self.{DECLARE}(batch_size, dtype, device)", mode="eval").body


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
    def is_open(self) -> bool:
        """Can it send keys that the code computes?"""
        return any(payload.open for payload in self.sends)

    @property
    def passes_on(self) -> bool:
        """Does forward return what an inner model, unknown here, or the caller gave it?"""
        return any(
            isinstance(o, Received) or tags_of(o) & {"forwarded", "maybe-forwarded"}
            for o in options_of(self.result)
        )

    @property
    def keeps(self) -> bool:
        """Can forward return what it received, or the state of its layers, as it is?"""
        return any(
            isinstance(option, Opaque) and (kinds(option, "carry:") or kinds(option, "read:"))
            for option in options_of(self.result)
        )

    @property
    def sent_tags(self) -> frozenset[str]:
        """The tags of all that it sends."""
        return frozenset[str]().union(*map(tags_of, self.sends))

    def reads_of(self, key: str) -> list[Read]:
        """The reads of a key."""
        return [read for read in self.trace.reads if matches(read.key, key)]


@dataclass(frozen=True)
class Part:
    """A module of the model: its class, and the attribute path that leads to it from the top."""

    instance: Instance
    path: str
    layers: dict[str, Layers]
    """Attributes of it that are lists of layers."""

    @property
    def cls(self) -> ClassRef:
        """The class of the module."""
        return self.instance.cls


@dataclass(frozen=True)
class Stage:
    """The contract of a class over all ranks."""

    cls: ClassRef
    forward: Function | None
    forward_owner: ClassRef | None
    views: Mapping[Role, View]
    declared: Payload | None
    """The receive buffers; None where an inner model declares them that is picked at run time."""
    undeclared: str
    """How the class comes to declare nothing; empty where it does, or that cannot be told."""
    lineage: Lineage
    parts: tuple[Part, ...]
    refuses: bool
    """Does the constructor raise wherever there are more ranks than one?"""

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

    def below(self, part: Part) -> list[Part]:
        """The module itself, and those that are in it."""
        return [p for p in self.parts if f"{p.path}.".startswith(f"{part.path}.")]

    def finding(
        self, code: str, spot: Spot, text: str, subject: str = "", *, mild: bool = False
    ) -> Finding:
        """A finding about the class, or about a key or variable of it."""
        symbol = f"{self.cls.name}.{subject}" if subject else self.cls.name
        return finding(code, spot, text, symbol=symbol, mild=mild)


def matches(pattern: str, other: str) -> bool:
    """Do two key patterns have a key in common? `*` stands for the computed part."""
    if "*" not in pattern and "*" not in other:
        return pattern == other
    head, tail = pattern.split("*")[0], pattern.rsplit("*", 1)[-1]
    other_head, other_tail = other.split("*")[0], other.rsplit("*", 1)[-1]
    heads = head.startswith(other_head) or other_head.startswith(head)
    return heads and (tail.endswith(other_tail) or other_tail.endswith(tail))


def lookup(entries: Mapping[str, Entry], key: str) -> Entry | None:
    """The entry for a key (or pattern)."""
    likely = (entry for pattern, entry in entries.items() if matches(pattern, key))
    return entries.get(key) or next(likely, None)


def parts_of(
    engine: Engine, instance: Instance, path: str = "self", deep: int = 0
) -> Iterator[Part]:
    """The class itself and the modules below it, the decoder layers left out."""
    attributes = engine.attributes(instance, Role.MIDDLE)
    layers = {
        name.removeprefix("self."): option
        for name, value in attributes.items()
        for option in options_of(value)
        if isinstance(option, Layers)
    }
    yield Part(instance, path, layers)
    if deep >= _DEEP:
        return
    for name, value in attributes.items():
        for option in options_of(value) if name.startswith("self.") else ():
            attribute = name.removeprefix("self.")
            if isinstance(option, Instance):
                yield from parts_of(engine, option, f"{path}.{attribute}", deep + 1)
            elif isinstance(option, Layers) and not option.partial:
                for element in options_of(option.element):
                    # Blocks of an encoder are many and hold no layers of their own.
                    if isinstance(element, Instance) and element.cls.asks_for_rank:
                        yield from parts_of(engine, element, f"{path}.{attribute}[]", deep + 1)


def derive(engine: Engine, cls: ClassRef) -> Stage:
    """Walk a class's `__init__`, declaration and forward for every role.

    Raises:
        OutOfStepsError: The code is too long to follow.
    """
    engine.start()
    instance = Instance(cls)
    owner, forward = engine.project.find_method(cls, "forward") or (None, None)
    views: dict[Role, View] = {}
    for role in Role:
        trace = Trace(role)
        attributes = dict(engine.attributes(instance, role))
        result: Value = UNKNOWN
        if owner is not None and forward is not None:
            walker = Walker(engine, trace, owner.module, instance, owner)
            given = from_runner(instance, forward, role)
            result, _ = walker.run(forward, owner, instance, given, attributes)
        views[role] = View(role, trace, result)
    lineage = engine.project.lineage(cls)
    declared, undeclared = _declaration(engine, instance)
    parts = tuple(parts_of(engine, instance))
    refuses = engine.init_trace(instance, Role.MIDDLE).refuses
    return Stage(cls, forward, owner, views, declared, undeclared, lineage, parts, refuses)


def _declaration(engine: Engine, instance: Instance) -> tuple[Payload | None, str]:
    """The receive buffers of a class, or how it comes to have none."""
    cls = instance.cls
    env: dict[str, Value] = {**engine.attributes(instance, Role.MIDDLE), "self": instance}
    held = env.get(f"self.{DECLARE}")
    if held is None and engine.project.find_method(cls, DECLARE) is None:
        # The protocol's stub alone answers, and returns None.
        return None, "" if engine.project.lineage(cls).unread else "nothing defines"
    value = Walker(engine, Trace(Role.MIDDLE), cls.module, instance, cls).eval(_CALL, env)
    payloads = [o for o in options_of(value) if isinstance(o, Payload)]
    others = [o for o in options_of(value) if not isinstance(o, Payload)]
    if payloads and all(nullness(o) is Null.YES for o in others):
        merged = joined(payloads)
        return (merged if isinstance(merged, Payload) else None), ""
    if Null.YES in (nullness(value), nullness(held) if held is not None else None):
        return None, "None is what it gets from"
    return None, ""


@lru_cache(KEPT)
def asserts_start(module: Module) -> bool:
    """Does the file check where the first layer of a later rank is?"""
    tests = (
        node.test
        for node in find(module.tree, ast.Assert, ast.If)
        if isinstance(node, ast.Assert) or isinstance(node.body[-1], ast.Raise)
    )
    return any("start_layer" in ast.unparse(test) for test in tests)
