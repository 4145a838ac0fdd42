"""Runs walkers over methods, and keeps what `__init__` makes of each class."""

from __future__ import annotations

import ast

from harness.lint.interp import Walker
from harness.lint.project import ClassRef, Module, Project
from harness.lint.trace import Role, Trace
from harness.lint.tree import walk
from harness.lint.values import (
    NONE,
    Env,
    Instance,
    Opaque,
    Received,
    Value,
    join,
    join_env,
    tags_of,
)

MOST_DEPTH = 7
MOST_STEPS = 40_000
MOST_NESTED = 8
_HARMLESS = frozenset(
    {"Module", "Protocol", "ABC", "object", "Generic", "CustomOp", "PluggableLayer"}
)


class OutOfStepsError(Exception):
    """The walk became too long; what was asked for cannot be followed."""


def is_harmless(base: str) -> bool:
    """Can a base class that was not read be known to define nothing that PP needs?

    vLLM's own protocols are stubs, and nn.Module and the like know nothing of PP.
    """
    name = base.split(".")[-1]
    return name in _HARMLESS or name.startswith(("Supports", "HasInner", "IsHybrid"))


def _assigned(function: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
    """Variables that plain assignments of the function set."""
    return frozenset(
        name.id
        for part in walk(function)
        if isinstance(part, ast.Assign)
        for target in part.targets
        for name in ([target] if isinstance(target, ast.Name) else getattr(target, "elts", ()))
        if isinstance(name, ast.Name)
    )


class Engine:
    """Runs walkers, keeps what `__init__` makes of each class, and bounds the work."""

    def __init__(self, project: Project) -> None:
        """One engine serves one analysis of many classes."""
        self.project = project
        self._attributes: dict[tuple[ClassRef, Role], Env] = {}
        self._traces: dict[tuple[ClassRef, Role], Trace] = {}
        self._busy: set[tuple[ClassRef, Role]] = set()
        self._steps = 0

    def step(self) -> None:
        """Count one step of work.

        Raises:
            OutOfStepsError: The bound for one analysis is reached.
        """
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise OutOfStepsError

    def start(self) -> None:
        """Begin a new analysis with a full allowance."""
        self._steps = 0

    def is_closed(self, cls: ClassRef) -> bool:
        """Are all bases of the class known, or known to be harmless?"""
        lineage = self.project.lineage(cls)
        return not lineage.cyclic and all(map(is_harmless, lineage.unknown))

    def attributes(self, cls: ClassRef, role: Role) -> Env:
        """`self.<name>` of an object after its `__init__`, as that rank builds it."""
        known = self.known_attributes(cls, role)
        return known if known is not None else {}

    def known_attributes(self, cls: ClassRef, role: Role) -> Env | None:
        """The same; None where the classes contain each other too deeply to tell."""
        key = (cls, role)
        if key in self._attributes:
            return self._attributes[key]
        if key in self._busy or len(self._busy) > MOST_NESTED:
            return None
        found = self.project.find_method(cls, "__init__")
        trace = Trace(role)
        entries: Env = {}
        if found is not None:
            self._busy.add(key)
            owner, method = found
            walker = Walker(self, trace, owner.module, cls, owner, 0)
            given: Env = {"self": Instance(cls)}
            try:
                _, entries = self.run(walker, method, owner, cls, given, {})
            finally:
                self._busy.discard(key)
        self._attributes[key] = entries
        self._traces[key] = trace
        return entries

    def forget(self, module: Module) -> None:
        """Free what is known about a module that will not be asked for again."""
        classes = list(module.refs.values())
        if self.project.forget(module):
            for cls in classes:
                for role in Role:
                    self._attributes.pop((cls, role), None)
                    self._traces.pop((cls, role), None)

    def init_trace(self, cls: ClassRef, role: Role) -> Trace:
        """What happened while `__init__` was walked."""
        self.attributes(cls, role)
        return self._traces.get((cls, role), Trace(role))

    def run(
        self,
        caller: Walker,
        function: ast.FunctionDef | ast.AsyncFunctionDef,
        owner: ClassRef | None,
        self_cls: ClassRef | None,
        arguments: Env,
        self_entries: Env,
        module: Module | None = None,
    ) -> tuple[Value, Env]:
        """Walk a function inline; its joined result, and the attributes of self afterwards."""
        if caller.depth >= MOST_DEPTH:
            return Opaque(tags=frozenset().union(*map(tags_of, arguments.values()))), self_entries
        where = module or (owner.module if owner is not None else caller.module)
        walker = Walker(
            self, caller.trace, where, self_cls, owner, caller.depth + 1, caller.certain
        )
        walker.local_names = _assigned(function)
        for name, value in arguments.items():
            if isinstance(value, Received):
                caller.trace.receivers.append((where, function, name))
        end = walker.block(function.body, {**arguments, **self_entries})
        result: Value | None = None
        for value, env in walker.returns:
            result = value if result is None else join(result, value)
            end = join_env(end, env)
        fell = bool(function.body) and not walker.returns
        if result is None or fell:
            result = NONE if result is None else result
        after = {k: v for k, v in (end or {}).items() if k.startswith("self.")}
        return result, after or self_entries
