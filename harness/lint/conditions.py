"""Conditions decide by the rank, and their outcome tells something about variables."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.lint.trace import Role
from harness.lint.tree import dotted, is_none, last_name
from harness.lint.values import (
    NONE,
    PRESENT,
    Const,
    Env,
    Missing,
    Null,
    OneOf,
    Opaque,
    Payload,
    Received,
    Seq,
    Value,
    nullness,
    options_of,
)

_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Gt: operator.gt, ast.LtE: operator.le}
}


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


def truth_of(value: Value) -> bool | None:
    """Truth value of an abstract value; None when the code leaves it open."""
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
            answers = {truth_of(option) for option in value.options}
            return answers.pop() if len(answers) == 1 else None
    return True


def compare(node: ast.expr, left: Value, op: ast.cmpop, right: Value, role: Role) -> bool | None:
    """`left op right` where both are known, or the left one (`node`) asks for the rank."""
    if not isinstance(right, Const):
        return None
    if isinstance(left, Const) and "*" not in f"{left.value}" and type(op) in (ast.Eq, ast.NotEq):
        return _COMPARED[type(op)](left.value, right.value)
    if _is_pp_group(node) and type(op) in _COMPARED:
        # The first rank of a real pipeline is number 0; there are two ranks or more.
        rank = 0 if role is Role.FIRST else 1
        known: dict[tuple[str, object], int] = {("world_size", 1): 2, ("rank_in_group", 0): rank}
        number = known.get((last_name(node), right.value))
        return _COMPARED[type(op)](number, right.value) if number is not None else None
    return None


def _is_pp_group(node: ast.expr) -> bool:
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
    if names & {"PPMissingLayer", "StageMissingLayer"} and isinstance(value, Missing):
        return True
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
    held = env.get(place)
    if held is None:
        env[place] = PRESENT if present else NONE
    elif isinstance(held, Opaque):
        env[place] = replace(held, null=Null.NO if present else Null.YES)
    elif isinstance(held, OneOf) and present:
        kept = [o for o in held.options if nullness(o) is not Null.YES]
        kept = [replace(o, null=Null.NO) if isinstance(o, Opaque) else o for o in kept]
        if kept:
            env[place] = kept[0] if len(kept) == 1 else OneOf(tuple(kept))
    return env
