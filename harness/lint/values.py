"""The abstract values that the interpreter computes with.

Only what the PP contract needs is kept apart: is it None, which received tensor does it come
from, which keys does a dict hold, is a module present on this rank. Everything else is `Opaque`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import reduce
from typing import TypeAlias

from harness.lint.project import ClassRef, Module, Spot
from harness.lint.tree import Function

NO_TAGS: frozenset[str] = frozenset()


class Null(Enum):
    """Whether a value can be None. UNKNOWN means: nothing in the code says so."""

    NO = "no"
    YES = "yes"
    MAYBE = "maybe"
    UNKNOWN = "unknown"


class Value:
    """Anything that the interpreter computes with: one of the classes below."""


@dataclass(frozen=True)
class Opaque(Value):
    """Any value of which only nullness and origin matter.

    Tags say where it comes from: `read:<key>` a received tensor; `first-only:<param>` a parameter
    that only the first rank is given, `input:<param>` the same on the first rank; `carry:<name>`
    goes through the layer loop; `attr:<name>` an attribute of self; `buffer:<name>` a tensor that
    lives on the module; `it` the incoming IntermediateTensors; `forwarded` what an inner model,
    unknown here, returned for it, and `maybe-forwarded` what any other unknown code did.

    Tags say what was done to it: `made` a tensor that the code made; `dtype:<name>` it was cast
    (on some path); `is:<name>` it is that dtype itself; `op:<step>` see `Trace.applied`. And
    `at:<name>` is a number that says where this rank is, such as `start_layer`; `same:<param>` is
    a parameter of a layer, untouched.
    """

    null: Null = Null.UNKNOWN
    tags: frozenset[str] = NO_TAGS


@dataclass(frozen=True)
class Const(Value):
    """A literal: str, int, float or bool."""

    value: object


@dataclass(frozen=True)
class Seq(Value):
    """A list, tuple or set whose items are known; `open` when there may be more."""

    items: tuple[Value, ...]
    open: bool = False
    tags: frozenset[str] = NO_TAGS


@dataclass(frozen=True)
class Entry:
    """One key of a payload: its value, whether every path has it, and where it was put in."""

    value: Value
    certain: bool
    spot: Spot


@dataclass(frozen=True, eq=False)
class Payload(Value):
    """A dict from key patterns to entries; `open` when unknown keys may be in it too.

    `packed` says that it is wrapped in IntermediateTensors. A pattern holds `*` where the code
    computes a part of the key.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    open: bool = False
    packed: bool = False

    @property
    def is_sure(self) -> bool:
        """Are its keys known, and all of them in it?"""
        return not self.open and all(entry.certain for entry in self.entries.values())

    def with_entry(self, key: str, entry: Entry) -> Payload:
        """The payload after one assignment."""
        return replace(self, entries={**self.entries, key: entry})


@dataclass(frozen=True)
class Received(Value):
    """The IntermediateTensors that a later rank gets; `tensors` when it is the dict inside."""

    tensors: bool = False


@dataclass(frozen=True)
class Instance(Value):
    """A module of a class that we can look into, and the options that its maker set."""

    cls: ClassRef
    options: tuple[tuple[str, Value], ...] = ()
    """Arguments of the constructor that are literals or classes, by parameter."""


@dataclass(frozen=True)
class Inner(Value):
    """A module that vLLM picks at run time (`init_vllm_registered_model`), so its class is open."""

    name: str = ""


@dataclass(frozen=True)
class Missing(Value):
    """A PPMissingLayer: the module does not exist on this rank."""


@dataclass(frozen=True)
class Layers(Value):
    """A list of decoder layers; `partial` when make_layers left only this rank's part real."""

    element: Value
    partial: bool


@dataclass(frozen=True)
class Bound(Value):
    """`module.method`, not yet called."""

    owner: Value
    name: str


@dataclass(frozen=True, eq=False)
class Closure(Value):
    """A function or lambda defined in the code at hand, with the variables it closes over."""

    node: Function | ast.Lambda
    module: Module
    env: Mapping[str, Value] = field(default_factory=dict)
    owner: ClassRef | None = None


@dataclass(frozen=True)
class ClassValue(Value):
    """A class used as a value."""

    cls: ClassRef


@dataclass(frozen=True)
class Partial(Value):
    """`partial(target, ...)`: a class or function with some of its arguments."""

    target: Value
    args: tuple[Value, ...]
    keywords: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, eq=False)
class Factory(Value):
    """The function that `make_empty_intermediate_tensors_factory` returned."""

    payload: Payload


@dataclass(frozen=True)
class OneOf(Value):
    """One of several values of different kinds."""

    options: tuple[Value, ...]


Env: TypeAlias = "dict[str, Value]"

NONE = Opaque(Null.YES)
UNKNOWN = Opaque()
_MOST_OPTIONS = 6


def nullness(value: Value) -> Null:
    """Can the value be None?"""
    if isinstance(value, Opaque):
        return value.null
    return reduce(_join_null, map(nullness, value.options)) if isinstance(value, OneOf) else Null.NO


def tags_of(value: Value) -> frozenset[str]:
    """The tags of the value and of its parts."""
    if isinstance(value, Opaque):
        return value.tags
    if isinstance(value, Seq):
        return value.tags.union(*(tags_of(item) for item in value.items))
    if isinstance(value, OneOf):
        return NO_TAGS.union(*(tags_of(option) for option in value.options))
    if isinstance(value, Payload):
        return NO_TAGS.union(*(tags_of(entry.value) for entry in value.entries.values()))
    if isinstance(value, Received):
        return frozenset({"it"})
    return NO_TAGS


_STAY_BEHIND = (
    *("it", "forwarded", "maybe-forwarded", "buffer:", "attr:", "made", "dtype:", "is:"),
    *("at:", "same:"),
)


def derived(tags: frozenset[str]) -> frozenset[str]:
    """The origins of a new tensor computed from others: no longer the thing itself."""
    return frozenset(t for t in tags if not t.startswith(_STAY_BEHIND)) if tags else tags


def kinds(value: Value, mark: str) -> frozenset[str]:
    """The names in tags of a kind: `kinds(value, "dtype:")` are the dtypes that it was cast to."""
    tags = tags_of(value)
    return frozenset(t.removeprefix(mark) for t in tags if t.startswith(mark)) if tags else tags


def with_tags(value: Value, tags: Iterable[str]) -> Value:
    """The value with more origins noted, where it can hold them."""
    extra = frozenset(tags)
    if not extra:
        return value
    if isinstance(value, Opaque):
        return Opaque(value.null, value.tags | extra)
    if isinstance(value, Seq):
        return replace(value, tags=value.tags | extra)
    if isinstance(value, OneOf):
        return OneOf(tuple(with_tags(option, extra) for option in value.options))
    return value


def unsure(value: Value) -> Value:
    """The value as it is when its None was only supposed, not found in the code."""
    if isinstance(value, Opaque) and value.null in (Null.YES, Null.MAYBE):
        return replace(value, null=Null.UNKNOWN)
    if isinstance(value, Seq):
        return replace(value, items=tuple(unsure(item) for item in value.items))
    if isinstance(value, OneOf):
        return OneOf(tuple(unsure(option) for option in value.options))
    return value


def _join_null(left: Null, right: Null) -> Null:
    if left is right:
        return left
    if Null.YES in (left, right) or Null.MAYBE in (left, right):
        return Null.MAYBE
    return Null.UNKNOWN


def _join_payload(left: Payload, right: Payload) -> Payload:
    entries: dict[str, Entry] = {}
    for key in (*left.entries, *(k for k in right.entries if k not in left.entries)):
        here, other = left.entries.get(key), right.entries.get(key)
        if here is not None and other is not None:
            value = join(here.value, other.value)
            entries[key] = Entry(value, here.certain and other.certain, here.spot)
        elif (entry := here or other) is not None:
            entries[key] = replace(entry, certain=False)
    return Payload(entries, left.open or right.open, left.packed)


def join(left: Value, right: Value) -> Value:
    """The value of a variable where two paths meet."""
    if left is right or (type(left) is type(right) and left == right):
        return left
    if isinstance(left, Opaque) and isinstance(right, Opaque):
        return Opaque(_join_null(left.null, right.null), left.tags | right.tags)
    if isinstance(left, Payload) and isinstance(right, Payload) and left.packed == right.packed:
        return _join_payload(left, right)
    if isinstance(left, Seq) and isinstance(right, Seq):
        if len(left.items) == len(right.items) and not _has_literals(left, right):
            items = tuple(join(a, b) for a, b in zip(left.items, right.items, strict=True))
            return Seq(items, left.open or right.open, left.tags | right.tags)
        longest = left if len(left.items) >= len(right.items) else right
        return Seq(longest.items, open=True, tags=left.tags | right.tags)
    if isinstance(left, Layers) and isinstance(right, Layers):
        return Layers(join(left.element, right.element), left.partial and right.partial)
    options: list[Value] = []
    for value in (left, right):
        for option in value.options if isinstance(value, OneOf) else (value,):
            _add_option(options, option)
    if len(options) > _MOST_OPTIONS:
        return Opaque(Null.UNKNOWN, tags_of(left) | tags_of(right))
    return one_of(options)


def _has_literals(*lists: Seq) -> bool:
    """Do the lists hold keys, which name what there is and are not alternatives?"""
    return any(isinstance(item, Const) for each in lists for item in each.items)


def _add_option(options: list[Value], new: Value) -> None:
    """Keep at most one Opaque and one payload of each kind among the options."""
    for index, old in enumerate(options):
        mergeable = (isinstance(old, Opaque) and isinstance(new, Opaque)) or (
            isinstance(old, Payload) and isinstance(new, Payload) and old.packed == new.packed
        )
        if mergeable or (type(old) is type(new) and old == new):
            options[index] = join(old, new)
            return
    options.append(new)


def joined(values: Iterable[Value]) -> Value:
    """The value of a variable where many paths meet; not known where there is no path."""
    known = list(values)
    return reduce(join, known) if known else UNKNOWN


def one_of(options: Sequence[Value]) -> Value:
    """The value that is one of some; not known where there is none."""
    if not options:
        return UNKNOWN
    return OneOf(tuple(options)) if len(options) > 1 else options[0]


def options_of(value: Value) -> tuple[Value, ...]:
    """The alternatives of a value; itself when there is one."""
    return value.options if isinstance(value, OneOf) else (value,)


def entries_of(env: Mapping[str, Value]) -> Env:
    """The attributes of self among the variables."""
    return {name: value for name, value in env.items() if name.startswith("self.")}


def join_env(left: Env | None, right: Env | None) -> Env | None:
    """The variables where two paths meet; None stands for a path that ended."""
    if left is None or right is None:
        return right if left is None else left
    merged: Env = {}
    for name, value in left.items():
        other = right.get(name)
        # A variable that only one path sets is of no use behind the join unless the code is
        # wrong in a way that Python itself reports.
        merged[name] = join(value, other) if other is not None else value
    return merged | {name: right[name] for name in right if name not in merged}
