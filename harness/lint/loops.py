"""How the interpreter treats loops over layers, and comprehensions."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.lint.payloads import MOST_ITEMS
from harness.lint.values import (
    UNKNOWN,
    Const,
    Entry,
    Layers,
    Null,
    Opaque,
    Payload,
    Seq,
    Value,
    tags_of,
)

if TYPE_CHECKING:
    from harness.lint.interp import Walker
    from harness.lint.values import Env

_ORIGIN_ONLY = frozenset({"it", "forwarded"})


def layers_in(walker: Walker, node: ast.expr, env: Env) -> Layers | None:
    """The list of decoder layers that an iterable runs over, if it is one."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute | ast.Name):
            value = env.get(walker.place(part) or "", None)
            if isinstance(value, Layers):
                return value
    return None


def loop_item(layers: Layers | None, items: Value, node: ast.For | ast.AsyncFor) -> Value:
    """What the loop variable holds."""
    if layers is None:
        return Opaque(tags=tags_of(items) - _ORIGIN_ONLY)
    if isinstance(node.target, ast.Tuple) and len(node.target.elts) == 2:
        return Seq((Opaque(Null.NO), layers.element))
    return layers.element


def carried_names(node: ast.For | ast.AsyncFor) -> dict[str, ast.AST]:
    """Variables that a call of the loop variable takes and gives back."""
    layer_names = {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
    carried: dict[str, ast.AST] = {}
    for part in ast.walk(node):
        if not isinstance(part, ast.Assign) or not isinstance(part.value, ast.Call):
            continue
        func = part.value.func
        if not (isinstance(func, ast.Name) and func.id in layer_names):
            continue
        given = [*part.value.args, *(k.value for k in part.value.keywords)]
        taken = {a.id for a in given if isinstance(a, ast.Name)}
        for target in part.targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            for name in names:
                if isinstance(name, ast.Name) and name.id in taken:
                    carried.setdefault(name.id, part)
    return carried


def list_comprehension(
    walker: Walker, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, env: Env
) -> Value:
    """A list whose items are known where the iterable's are; else one item as a pattern."""
    generator = node.generators[0]
    items = walker.eval(generator.iter, env)
    scope = dict(env)
    if (
        isinstance(items, Seq)
        and not items.open
        and len(node.generators) == 1
        and not generator.ifs
        and len(items.items) <= MOST_ITEMS
    ):
        found: list[Value] = []
        for item in items.items:
            walker.assign(generator.target, item, scope)
            found.append(walker.eval(node.elt, scope))
        return Seq(tuple(found))
    for each in node.generators:
        walker.assign(each.target, Opaque(tags=tags_of(items) - _ORIGIN_ONLY), scope)
    value = walker.eval(node.elt, scope)
    if isinstance(value, Const) and isinstance(value.value, str) and value.value.strip("*"):
        return Seq((value,), open=True)
    return Seq((value,) if not isinstance(value, Const) else (), open=True, tags=tags_of(items))


def dict_comprehension(walker: Walker, node: ast.DictComp, env: Env) -> Value:
    """A dict with the iterable's keys where they are known; else with a pattern, or open."""
    generator = node.generators[0]
    items = walker.eval(generator.iter, env)
    walker.use(items)
    scope = dict(env)
    payload = Payload({}, line=node.lineno)
    known = isinstance(items, Seq) and not items.open and not generator.ifs
    rounds: tuple[Value, ...] = (UNKNOWN,)
    if isinstance(items, Seq) and items.items and len(node.generators) == 1:
        rounds = items.items
    for item in rounds:
        walker.assign(generator.target, item, scope)
        for each in node.generators[1:]:
            walker.assign(each.target, UNKNOWN, scope)
        key, value = walker.eval(node.key, scope), walker.eval(node.value, scope)
        walker.use(value)
        if isinstance(key, Const) and isinstance(key.value, str) and key.value.strip("*"):
            sure = known and "*" not in key.value
            payload = payload.with_entry(key.value, Entry(value, sure, node.lineno))
        else:
            payload = replace(payload, open=True)
    return payload
