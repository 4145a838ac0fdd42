"""Conditions decide by the rank, and their outcome tells something about variables."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from harness.lint.trace import Role
from harness.lint.tree import dotted, is_none, last_name
from harness.lint.values import (
    NONE,
    UNKNOWN,
    Const,
    Env,
    Instance,
    Missing,
    Null,
    OneOf,
    Opaque,
    Payload,
    Received,
    Seq,
    Value,
    kinds,
    nullness,
    one_of,
    options_of,
)

_Pair: TypeAlias = "tuple[ast.expr, ast.expr]"
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Gt: operator.gt, ast.LtE: operator.le},
    **{ast.Lt: operator.lt, ast.GtE: operator.ge},
}
# In a pipeline of three ranks with a layer each: how many there are of what has such a name.
_RANKS = 3
_TOTALS = frozenset({"world_size", "num_hidden_layers", "num_layers", "n_layer", "n_layers"})
_OWN = {"rank_in_group": 0, "start_layer": 0, "end_layer": 1}


def place_of(node: ast.expr) -> str | None:
    """The name under which the environment holds `x`, `x.tensors` or `self.x`."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name("self"), name):
            return f"self.{name}"
        case ast.Attribute(inner, "tensors"):
            return place_of(inner)
    return None


def truth_of(value: Value, role: Role) -> bool | None:
    """Truth value of an abstract value; None when the code leaves it open."""
    if kinds(value, "at:") & {"start_layer", "rank_in_group"}:
        return role is not Role.FIRST
    match value:
        case Const():
            return None if "*" in f"{value.value}" else bool(value.value)
        case Opaque():
            return False if value.null is Null.YES else None
        case Seq():
            return None if value.open else bool(value.items)
        case Payload():
            return True if value.packed or any(e.certain for e in value.entries.values()) else None
        case OneOf():
            answers = {truth_of(option, role) for option in value.options}
            return answers.pop() if len(answers) == 1 else None
    return True


def compare(op: ast.cmpop, left: Value, right: Value, nodes: _Pair, role: Role) -> bool | None:
    """`left op right` where both are known, or say where this rank is in the pipeline."""
    if type(op) not in _COMPARED:
        return None
    if isinstance(left, Const) and isinstance(right, Const) and "*" not in f"{left.value}":
        is_equality = isinstance(op, ast.Eq | ast.NotEq)
        return _COMPARED[type(op)](left.value, right.value) if is_equality else None
    here, there = (
        _place_in_pipeline(n, v, role) for n, v in zip(nodes, (left, right), strict=True)
    )
    # The first layer and rank are number 0; of other literal numbers only a size of 1 tells.
    if isinstance(right, Const) and here is not None:
        is_size = "world_size" in (*kinds(left, "at:"), last_name(nodes[0]))
        there = right.value if right.value == (1 if is_size else 0) else None
    return _COMPARED[type(op)](here, there) if None not in (here, there) else None


def _place_in_pipeline(node: ast.expr, value: Value, role: Role) -> int | None:
    """A number of layers or ranks, as it is on this rank of a pipeline with a layer each."""
    match node:
        case ast.BinOp(left=left, op=ast.Sub(), right=ast.Constant(value=1)):
            before = _place_in_pipeline(left, UNKNOWN, role)
            return before - 1 if before is not None else None
        case ast.Call(func=ast.Name("len"), args=[layers]):
            return _RANKS if last_name(layers).endswith("layers") else None
    name = next(iter(sorted(kinds(value, "at:"))), last_name(node))
    if name in ("world_size", "rank_in_group") and not kinds(value, "at:"):
        name = name if is_pp_group(node) else ""
    if name in _OWN:
        return list(Role).index(role) + _OWN[name]
    return _RANKS if name in _TOTALS else None


def is_pp_group(node: ast.expr) -> bool:
    """Is this an attribute of the PP group, as in `get_pp_group().world_size`?"""
    if not isinstance(node, ast.Attribute):
        return False
    if isinstance(node.value, ast.Call):
        return dotted(node.value.func).endswith("get_pp_group")
    return last_name(node.value) in ("pp_group", "pp", "_pp_group")


def is_instance(value: Value, classes: ast.expr) -> bool | None:
    """`isinstance(value, classes)`, where the code tells."""
    nodes = classes.elts if isinstance(classes, ast.Tuple) else [classes]
    names = {last_name(node) for node in nodes}
    answers = {_is_one_of(option, names) for option in options_of(value)}
    return answers.pop() if len(answers) == 1 else None


def _is_one_of(value: Value, names: set[str]) -> bool | None:
    if "IntermediateTensors" in names:
        if isinstance(value, Payload | Received):
            return True
        return None if isinstance(value, Opaque) else False
    if names == {"Tensor"}:
        return False if isinstance(value, Payload | Received | Seq) else None
    if names & {"PPMissingLayer", "StageMissingLayer"} and isinstance(value, Missing | Instance):
        # A loop over all layers passes at least one that is there.
        return isinstance(value, Missing)
    return None


def supposes_none(test: ast.expr, env: Env) -> bool | None:
    """A test on an argument of which nothing is known supposes, in one branch, that it is None.

    True: the body does; False: the else branch; None: neither.
    """
    match test:
        case ast.Compare(ast.Name(name), [op], [ast.Constant(None)]):
            is_open = nullness(env.get(name, NONE)) is Null.UNKNOWN
            return isinstance(op, ast.Is) if is_open else None
    return None


def refine(node: ast.expr, env: Env, truth: bool) -> Env:
    """Narrow the variables of `env`, in place, by a condition's outcome."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return refine(node.operand, env, not truth)
    if isinstance(node, ast.BoolOp):
        if isinstance(node.op, ast.And) is truth:
            for part in node.values:
                env = refine(part, env, truth)
        return env
    place, present = place_of(node), truth
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and is_none(node.comparators[0]):
        place = place_of(node.left)
        if isinstance(node.ops[0], ast.Is):
            present = not truth
        elif not isinstance(node.ops[0], ast.IsNot):
            return env
    elif not truth:
        # `if x:` being false does not say that x is None.
        return env
    if place is None:
        return env
    held = env.get(place, UNKNOWN)
    if isinstance(held, Opaque):
        env[place] = Opaque(Null.NO if present else Null.YES, held.tags)
    elif isinstance(held, OneOf) and present:
        kept = [o for o in held.options if nullness(o) is not Null.YES]
        kept = [replace(o, null=Null.NO) if isinstance(o, Opaque) else o for o in kept]
        if kept:
            env[place] = one_of(kept)
    return env
