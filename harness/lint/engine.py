"""Keeps what the constructor of each class makes on each rank, and bounds the work of a walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from harness.lint.project import ClassRef, Project
from harness.lint.trace import Role, Trace
from harness.lint.values import Env, Instance

_MOST_STEPS = 40_000
_MOST_NESTED = 8
_HARMLESS = frozenset(
    {"Module", "Protocol", "ABC", "object", "Generic", "CustomOp", "PluggableLayer"}
)

Construct: TypeAlias = "Callable[[Engine, Instance, Trace], Env]"


class OutOfStepsError(Exception):
    """The walk became too long; what was asked for cannot be followed."""


def is_harmless(base: str) -> bool:
    """Can a base class that was not read be known to define nothing that PP needs?

    vLLM's own protocols are stubs, and nn.Module and the like know nothing of PP.
    """
    name = base.split(".")[-1]
    return name in _HARMLESS or name.startswith(("Supports", "HasInner", "IsHybrid"))


class Engine:
    """Runs walkers, keeps what `__init__` makes of each class, and bounds the work."""

    def __init__(self, project: Project, construct: Construct) -> None:
        """One engine serves one analysis of many classes; `construct` walks a constructor."""
        self.project = project
        self._construct = construct
        self._attributes: dict[tuple[Instance, Role], Env] = {}
        self._traces: dict[tuple[Instance, Role], Trace] = {}
        self._alike: dict[ClassRef, bool] = {}
        self._busy: set[tuple[Instance, Role]] = set()
        self._steps = 0

    def step(self) -> None:
        """Count one step of work.

        Raises:
            OutOfStepsError: The bound for one analysis is reached.
        """
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise OutOfStepsError

    def start(self) -> None:
        """Begin a new analysis with a full allowance."""
        self._steps = 0

    def is_closed(self, cls: ClassRef) -> bool:
        """Are all bases of the class known, or known to be harmless?"""
        lineage = self.project.lineage(cls)
        return not lineage.cyclic and all(map(is_harmless, lineage.unknown))

    def attributes(self, instance: Instance, role: Role) -> Env:
        """`self.<name>` of an object after its `__init__`, as that rank builds it."""
        return self.known_attributes(instance, role) or {}

    def known_attributes(self, instance: Instance, role: Role) -> Env | None:
        """The same; None where the classes contain each other too deeply to tell."""
        if role is not Role.MIDDLE and self._is_alike(instance.cls):
            return self.known_attributes(instance, Role.MIDDLE)
        key = (instance, role)
        if key in self._attributes:
            return self._attributes[key]
        if key in self._busy or len(self._busy) > _MOST_NESTED:
            return None
        trace = self._traces[key] = Trace(role)
        self._busy.add(key)
        try:
            self._attributes[key] = self._construct(self, instance, trace)
        finally:
            self._busy.discard(key)
        return self._attributes[key]

    def _is_alike(self, cls: ClassRef) -> bool:
        """Does every rank build the object's own attributes alike?"""
        if cls not in self._alike:
            classes = self.project.lineage(cls).classes
            self._alike[cls] = not any(ref.asks_for_rank for ref in classes)
        return self._alike[cls]

    def init_trace(self, instance: Instance, role: Role) -> Trace:
        """The trace of the walk through `__init__`."""
        self.attributes(instance, role)
        played = Role.MIDDLE if self._is_alike(instance.cls) else role
        return self._traces.get((instance, played), Trace(role))
