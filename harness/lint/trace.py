"""The interpreter writes these events down while it walks a forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harness.lint.project import Module, Spot
from harness.lint.tree import Function
from harness.lint.values import Null


class Role(StrEnum):
    """The pipeline rank that is being played. With two ranks there is no middle."""

    FIRST = "first"
    MIDDLE = "middle"
    LAST = "last"


@dataclass(frozen=True)
class Read:
    """One read of a key from the received tensors."""

    key: str
    certain: bool
    spot: Spot
    tolerant: bool = False
    """`.get(key)`: does without it."""


@dataclass(frozen=True)
class Note:
    """A fault that this rank would show; the checks decide on which ranks it counts."""

    code: str
    spot: Spot
    text: str
    subject: str = ""
    """The attribute, variable or argument that it is about."""


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
    notes: list[Note] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    open_read: bool = False
    """Keys were read that the code computes."""
    executed_reads: set[int] = field(default_factory=set)
    receivers: list[tuple[Module, Function, str]] = field(default_factory=list)
    """Functions that were given the received tensors, and under which parameter name."""
    used: set[str] = field(default_factory=set)
    """Tags of all values that went somewhere."""
    dead_guards: dict[int, str] = field(default_factory=dict)
    """`if` statements that are false on this rank because of a first-rank-only parameter."""
    carried: dict[str, Carried] = field(default_factory=dict)
    """Variables that go into a layer and come out of it, by name."""
    loop_inputs: dict[str, Spot] = field(default_factory=dict)
    """Arguments that only the first rank is given, used in a loop over layers there."""
    layer_arguments: dict[str, tuple[Null, Spot]] = field(default_factory=dict)
    """Variables that a loop hands to all of its layers as they are: can they be None?"""
    applied: dict[Step, Spot] = field(default_factory=dict)
    """Operations outside of the loops over layers, and where each was first seen."""
    refuses: bool = False
    """The walk has no end but `raise`."""
    loops: int = 0
    """Loops over layers walked so far."""
    in_shape_test: int = 0
    """Tests of the shape of the layers' state that the walk is inside of."""
    in_loop: int = 0
    """Loops over layers that the walk is inside of."""

    def noted(self, code: str) -> list[Note]:
        """The notes about a rule."""
        return [note for note in self.notes if note.code == code]
