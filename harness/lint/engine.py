"""Keeps what the constructor of each class makes on each rank, and bounds the work of a walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from harness.lint.project import Project
from harness.lint.trace import Role, Trace
from harness.lint.values import Env, Instance

_MOST_STEPS = 40_000
_MOST_NESTED = 8

Construct: TypeAlias = "Callable[[Engine, Instance, Trace], Env]"


class OutOfStepsError(Exception):
    """The walk became too long; what was asked for cannot be followed."""


class Engine:
    """Runs walkers, keeps what `__init__` makes of each class, and bounds the work."""

    def __init__(self, project: Project, construct: Construct) -> None:
        """One engine serves one analysis of many classes; `construct` walks a constructor."""
        self.project = project
        self._construct = construct
        self._built: dict[tuple[Instance, Role], tuple[Env, Trace]] = {}
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

    def attributes(self, instance: Instance, role: Role) -> Env:
        """`self.<name>` of an object after its `__init__`, as that rank builds it."""
        built = self.built(instance, role)
        return built[0] if built is not None else {}

    def init_trace(self, instance: Instance, role: Role) -> Trace:
        """The trace of the walk through `__init__`; not to be asked for during another."""
        built = self.built(instance, role)
        assert built is not None
        return built[1]

    def built(self, instance: Instance, role: Role) -> tuple[Env, Trace] | None:
        """Both; None where the classes contain each other too deeply to tell."""
        if not self.project.lineage(instance.cls).asks_for_rank:
            role = Role.MIDDLE  # every rank builds the object's own attributes alike
        key = (instance, role)
        if key not in self._built:
            if key in self._busy or len(self._busy) > _MOST_NESTED:
                return None
            trace = Trace(role)
            self._busy.add(key)
            try:
                self._built[key] = self._construct(self, instance, trace), trace
            finally:
                self._busy.discard(key)
        return self._built[key]
