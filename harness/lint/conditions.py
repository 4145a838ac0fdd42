"""Conditions decide by the rank, and their outcome tells something about variables."""

from __future__ import annotations

import ast
from dataclasses import replace

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


def place_of(node: ast.expr) -> str | None:
    """The name under which the environment holds `x`, `x.tensors` or `self.x`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return f"self.{node.attr}"
        if node.attr == "tensors":
            return place_of(node.value)
    return None


def truth_of(value: Value) -> bool | None:
    """Truth value of an abstract value; None when the code leaves it open."""
    match value:
        case Const():
            return None if "*" in f"{value.value}" else bool(value.value)
        case Opaque():
            return False if value.null is Null.YES else None
        case Seq():
            if value.items:
                return None if value.open else True
            return None if value.open else False
        case Payload():
            return True if value.packed or any(e.certain for e in value.entries.values()) else None
        case OneOf():
            answers = {truth_of(option) for option in value.options}
            return answers.pop() if len(answers) == 1 else None
    return True


def compare(node: ast.expr, left: Value, op: ast.cmpop, right: Value, role: Role) -> bool | None:
    """`left op right` where both are known, or the left one (`node`) asks for the rank."""
    if isinstance(left, Const) and isinstance(right, Const) and "*" not in f"{left.value}":
        if isinstance(op, ast.Eq):
            return left.value == right.value
        if isinstance(op, ast.NotEq):
            return left.value != right.value
    if isinstance(right, Const) and _is_pp_group(node):
        return _compare_rank(last_name(node), op, right.value, role)
    return None


def _is_pp_group(node: ast.expr) -> bool:
    """Is this an attribute of the PP group, as in `get_pp_group().world_size`?"""
    if not isinstance(node, ast.Attribute):
        return False
    if isinstance(node.value, ast.Call):
        return dotted(node.value.func).endswith("get_pp_group")
    return last_name(node.value) in ("pp_group", "pp", "_pp_group")


def _compare_rank(name: str, op: ast.cmpop, value: object, role: Role) -> bool | None:
    """`get_pp_group().world_size > 1` and `rank_in_group == 0`, for a rank of a real pipeline."""
    if name == "world_size" and value == 1:
        if isinstance(op, ast.Gt | ast.NotEq):
            return True
        if isinstance(op, ast.Eq | ast.LtE):
            return False
    if name == "rank_in_group" and value == 0:
        if isinstance(op, ast.Eq):
            return role is Role.FIRST
        if isinstance(op, ast.Gt | ast.NotEq):
            return role is not Role.FIRST
    return None


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
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    if not isinstance(test.left, ast.Name) or not is_none(test.comparators[0]):
        return None
    if nullness(env.get(test.left.id, NONE)) is not Null.UNKNOWN:
        return None
    return isinstance(test.ops[0], ast.Is)


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
