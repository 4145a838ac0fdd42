"""Decides conditions for the rank that is played, and what their outcome says about variables."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.lint import payloads
from harness.lint.project import dotted
from harness.lint.values import (
    NONE,
    PRESENT,
    Const,
    Null,
    OneOf,
    Opaque,
    Payload,
    Seq,
    Value,
    nullness,
)

if TYPE_CHECKING:
    from harness.lint.interp import Walker
    from harness.lint.values import Env


def decide(walker: Walker, node: ast.expr, env: Env) -> bool | None:
    """Is the condition true on this rank? None when the code leaves it open."""
    match node:
        case ast.BoolOp():
            ending = not isinstance(node.op, ast.And)
            verdicts = [verdict for _, _, verdict in steps(walker, node, env)]
            if ending in verdicts:
                return ending
            return None if None in verdicts else not ending
        case ast.UnaryOp(op=ast.Not()):
            inner = decide(walker, node.operand, env)
            return None if inner is None else not inner
        case ast.Compare(ops=[op], comparators=[right]):
            return _compare(walker, node.left, op, right, env)
        case ast.Compare() | ast.UnaryOp():
            for part in ast.iter_child_nodes(node):
                if isinstance(part, ast.expr):
                    walker.use(walker.eval(part, env))
            return None
    return truth_of(walker.eval(node, env))


def _compare(
    walker: Walker, left: ast.expr, op: ast.cmpop, right: ast.expr, env: Env
) -> bool | None:
    if isinstance(op, ast.Is | ast.IsNot) and _is_none(right):
        null = nullness(walker.eval(left, env))
        if null in (Null.YES, Null.NO):
            return (null is Null.YES) is isinstance(op, ast.Is)
        return None
    one, two = walker.eval(left, env), walker.eval(right, env)
    walker.use(one)
    if isinstance(op, ast.In | ast.NotIn):
        walker.use(two)
        found = payloads.contains(two, one)
        return None if found is None else found is isinstance(op, ast.In)
    walker.use(two)
    if isinstance(one, Const) and isinstance(two, Const) and "*" not in f"{one.value}":
        if isinstance(op, ast.Eq):
            return one.value == two.value
        if isinstance(op, ast.NotEq):
            return one.value != two.value
    name = dotted(left).rsplit(".", 1)[-1] or (left.attr if isinstance(left, ast.Attribute) else "")
    if isinstance(two, Const) and payloads.is_pp_group(left):
        return payloads.compare_rank(name, op, two.value, walker.trace.role)
    return None


def truth_of(value: Value) -> bool | None:
    """Truth value of an abstract value."""
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
            found = {truth_of(option) for option in value.options}
            return found.pop() if len(found) == 1 else None
    return True


def steps(
    walker: Walker, node: ast.BoolOp, env: Env
) -> Iterator[tuple[ast.expr, Env, bool | None]]:
    """The operands that are reached, what those before say of the variables, and the verdict."""
    goes_on = isinstance(node.op, ast.And)
    scope, before = env, walker.uncertain
    for part in node.values:
        verdict = decide(walker, part, scope)
        yield part, scope, verdict
        if verdict is (not goes_on):
            break
        # Python itself looks at the next operand only when this one came out this way.
        scope = refine(walker, part, dict(scope), goes_on)
        walker.uncertain += verdict is None
    walker.uncertain = before


def supposes_none(test: ast.expr, env: Env) -> bool | None:
    """Which branch of a test supposes that an argument, of which nothing is known, is None?

    True: the body; False: the else branch; None: neither.
    """
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    if not isinstance(test.left, ast.Name) or not _is_none(test.comparators[0]):
        return None
    if nullness(env.get(test.left.id, NONE)) is not Null.UNKNOWN:
        return None
    return isinstance(test.ops[0], ast.Is)


def refine(walker: Walker, node: ast.expr, env: Env, truth: bool) -> Env:
    """What a condition's outcome says about the variables in it."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return refine(walker, node.operand, env, not truth)
    if isinstance(node, ast.BoolOp):
        if isinstance(node.op, ast.And) is truth:
            for part in node.values:
                env = refine(walker, part, env, truth)
        return env
    place, known = walker.place(node), truth
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and _is_none(node.comparators[0]):
        place = walker.place(node.left)
        if isinstance(node.ops[0], ast.Is):
            known = not truth
        elif not isinstance(node.ops[0], ast.IsNot):
            return env
    elif place is None or not truth:
        # `if x:` being false does not say that x is None.
        return env
    if place is None:
        return env
    held = env.get(place)
    if held is None:
        env[place] = PRESENT if known else NONE
    elif isinstance(held, Opaque):
        env[place] = replace(held, null=Null.NO if known else Null.YES)
    elif isinstance(held, OneOf) and known:
        kept = [o for o in held.options if nullness(o) is not Null.YES]
        kept = [replace(o, null=Null.NO) if isinstance(o, Opaque) else o for o in kept]
        if kept:
            env[place] = kept[0] if len(kept) == 1 else OneOf(tuple(kept))
    return env


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
