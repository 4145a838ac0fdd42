"""The interpreter writes these events down while it walks a forward pass."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from enum import StrEnum

from harness.lint.project import Module
from harness.lint.tree import Function


class Role(StrEnum):
    """The pipeline rank that is being played. With two ranks there is no middle."""

    FIRST = "first"
    MIDDLE = "middle"
    LAST = "last"


@dataclass(frozen=True)
class Spot:
    """A place in a file."""

    module: Module
    node: ast.AST


@dataclass(frozen=True)
class Read:
    """One read of a key from the received tensors."""

    key: str
    certain: bool
    spot: Spot
    tolerant: bool = False
    """`.get(key)`: does without it."""


@dataclass(frozen=True)
class Use:
    """An attribute or a method asked of something that does not have it."""

    name: str
    owner: str
    spot: Spot


@dataclass(frozen=True)
class Carried:
    """A variable of the layer loop, and where its first value on this rank comes from."""

    spot: Spot
    initial: frozenset[str]
    by_layers: bool
    """It goes through every layer, and is not kept beside them for some."""


@dataclass(frozen=True)
class Step:
    """An operation that changes what a tensor holds, outside of the loops over layers."""

    phase: str
    """`before` the first loop over layers, or `after` one."""
    text: str
    """The operation without its operand: `self.norm`, `* self.scale`."""

    @property
    def tag(self) -> str:
        """The tag of what it was applied to."""
        return f"op:{self.phase}:{self.text}"


@dataclass
class Trace:
    """The events of one walk, for one role."""

    role: Role
    reads: list[Read] = field(default_factory=list)
    open_read: bool = False
    """Keys were read that the code computes."""
    executed_reads: set[int] = field(default_factory=set)
    receivers: list[tuple[Module, Function, str]] = field(default_factory=list)
    """Functions that were given the received tensors, and under which parameter name."""
    used: set[str] = field(default_factory=set)
    no_methods: list[Use] = field(default_factory=list)
    """Methods asked of IntermediateTensors that it does not have."""
    missing_uses: list[Use] = field(default_factory=list)
    """Attributes asked of a PPMissingLayer."""
    dead_guards: dict[int, str] = field(default_factory=dict)
    """`if` statements that are false on this rank because of a first-rank-only parameter."""
    dropped_calls: list[Spot] = field(default_factory=list)
    """Inner models called with intermediate_tensors=None although there is one to pass."""
    touched: list[Spot] = field(default_factory=list)
    """Arithmetic on what an inner model returned, where that can be IntermediateTensors."""
    carried: dict[str, Carried] = field(default_factory=dict)
    """Variables that go into a layer and come out of it, by name."""
    missing_ties: list[Spot] = field(default_factory=list)
    """Places where lm_head is tied to a module that this rank lacks."""
    none_uses: list[Use] = field(default_factory=list)
    """Attributes asked of an argument that is None on this rank."""
    unbound: list[Use] = field(default_factory=list)
    """Local variables that are used where no path has set them."""
    embeddings: list[Use] = field(default_factory=list)
    """Embeddings of the inputs that are run for sure."""
    loop_inputs: dict[str, Spot] = field(default_factory=dict)
    """Arguments that only the first rank is given, used in a loop over layers there."""
    input_uses: list[Spot] = field(default_factory=list)
    """Layers that are given input_ids."""
    applied: dict[Step, Spot] = field(default_factory=dict)
    """Operations outside of the loops over layers, and where each was first seen."""
    loops: int = 0
    """Loops over layers walked so far."""
    in_loop: int = 0
    """Loops over layers that the walk is inside of."""
