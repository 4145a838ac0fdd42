"""What the interpreter writes down beside the values: guards, layer loops, odd assignments."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from harness.lint import loops
from harness.lint.project import dotted
from harness.lint.trace import Carried, Role, Spot
from harness.lint.tree import walk
from harness.lint.values import UNKNOWN, Missing, Opaque, Value, tags_of

if TYPE_CHECKING:
    from harness.lint.interp import Walker
    from harness.lint.values import Env


def guard(walker: Walker, node: ast.If, env: Env) -> None:
    """An `if` is false on this rank: note it when a first-rank-only parameter is the cause."""
    names = [n for n in walk(node.test) if isinstance(n, ast.Name)]
    for name in names:
        for tag in tags_of(env.get(name.id, UNKNOWN)):
            if tag.startswith("first-only:"):
                walker.trace.dead_guards[id(node)] = tag.removeprefix("first-only:")


def layer_loop(walker: Walker, node: ast.For | ast.AsyncFor, env: Env) -> dict[str, ast.AST]:
    """Write down what a loop over layers takes along."""
    walker.trace.loops += 1
    carried = {**loops.kept_lists(node), **loops.carried_names(node)}
    for name, place in carried.items():
        initial = tags_of(env.get(name, UNKNOWN))
        note = Carried(Spot(walker.module, place), initial)
        walker.trace.carried.setdefault(name, note)
    for part in (part for statement in node.body for part in walk(statement)):
        if walker.trace.role is Role.FIRST and isinstance(part, ast.Name):
            for tag in tags_of(env.get(part.id, UNKNOWN)):
                if tag.startswith("input:") and tag.removeprefix("input:") == part.id:
                    walker.trace.loop_inputs.setdefault(part.id, Spot(walker.module, part))
    if walker.trace.role is not Role.FIRST:
        for call in loops.layer_calls(node):
            for name in loops.given_names(call):
                if "param:input_ids" in tags_of(env.get(name, UNKNOWN)) and name == "input_ids":
                    walker.trace.input_uses.append(Spot(walker.module, call))
    return carried


def assignment(walker: Walker, node: ast.Assign, value: Value, env: Env) -> None:
    """Write down heads tied to a missing module, and received values that are scaled again."""
    walker.trace.assigned.add(id(node))
    target = node.targets[0]
    if (
        isinstance(target, ast.Attribute)
        and "head" in target.attr
        and isinstance(value, Missing)
        and isinstance(node.value, ast.Attribute)
    ):
        walker.trace.missing_ties.append(Spot(walker.module, node))
    if not isinstance(target, ast.Name) or walker.trace.role is Role.FIRST or walker.trace.loops:
        return
    held = env.get(target.id)
    fresh = isinstance(held, Opaque) and any(t.startswith("read:") for t in held.tags)
    if fresh and walker.certain and _rescales(node.value, target.id):
        walker.trace.restated.append((target.id, node, Spot(walker.module, node)))


def _rescales(node: ast.expr, name: str) -> bool:
    """`x * scale`, `x / scale` or `self.norm(x)`: what an embedding does once."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        return any(isinstance(s, ast.Name) and s.id == name for s in (node.left, node.right))
    if isinstance(node, ast.Call) and "norm" in dotted(node.func).rpartition("self.")[2]:
        first = node.args[0] if node.args else None
        return isinstance(first, ast.Name) and first.id == name and len(node.args) == 1
    return False
