"""How the interpreter treats loops over layers, and comprehensions."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.lint.payloads import MOST_ITEMS
from harness.lint.project import dotted
from harness.lint.tree import walk
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
    derived,
    tags_of,
    with_tags,
)

if TYPE_CHECKING:
    from harness.lint.interp import Walker
    from harness.lint.values import Env


def layers_in(walker: Walker, node: ast.expr, env: Env) -> Layers | None:
    """The list of decoder layers that an iterable runs over, if it is one."""
    for part in walk(node):
        if isinstance(part, ast.Attribute | ast.Name):
            value = env.get(walker.place(part) or "", None)
            if isinstance(value, Layers):
                return value
    if any(isinstance(p, ast.Attribute) and p.attr == "start_layer" for p in walk(node)):
        # The list itself is not known (an odd constructor), or the loop goes over its indices.
        return Layers(UNKNOWN, partial=True)
    return None


def loop_item(layers: Layers | None, items: Value, node: ast.For | ast.AsyncFor) -> Value:
    """What the loop variable holds."""
    if layers is None or _counts(node.iter):
        return Opaque(tags=derived(tags_of(items)))
    if isinstance(node.target, ast.Tuple) and len(node.target.elts) == 2:
        return Seq((Opaque(Null.NO), layers.element))
    return layers.element


def _counts(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and dotted(node.func) == "range"


def layer_names(node: ast.For | ast.AsyncFor) -> set[str]:
    """Variables that hold a layer inside of the loop: its target, or `x = self.layers[i]`."""
    names = {n.id for n in walk(node.target) if isinstance(n, ast.Name)}
    for part in walk(node):
        if (
            isinstance(part, ast.Assign)
            and isinstance(part.value, ast.Subscript)
            and dotted(part.value.value).endswith("layers")
        ):
            names |= {t.id for t in part.targets if isinstance(t, ast.Name)}
    return names


def layer_calls(node: ast.For | ast.AsyncFor) -> list[ast.Call]:
    """Calls of a layer inside of the loop."""
    called = layer_names(node)
    return [
        part
        for part in walk(node)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in called
    ]


def given_names(call: ast.Call) -> set[str]:
    """Variables that are arguments of a call."""
    given = [*call.args, *(k.value for k in call.keywords)]
    return {a.id for a in given if isinstance(a, ast.Name)}


def carried_names(node: ast.For | ast.AsyncFor) -> dict[str, ast.AST]:
    """Variables that a layer takes, and that what a layer gave back ends up in."""
    calls = layer_calls(node)
    ids = {id(call) for call in calls}
    taken: set[str] = set().union(*(given_names(call) for call in calls))
    assigns = [p for p in walk(node) if isinstance(p, ast.Assign)]
    given_back: set[str] = set()
    places: dict[str, ast.AST] = {}
    for _ in range(2):  # once for what the layer returns, once for copies of it
        for assign in assigns:
            inside = list(walk(assign.value))
            from_layer = any(id(part) in ids for part in inside)
            copied = isinstance(assign.value, ast.Name | ast.IfExp | ast.Tuple) and any(
                isinstance(part, ast.Name) and part.id in given_back for part in inside
            )
            if from_layer or copied:
                for target in assign.targets:
                    for name in walk(target):
                        if isinstance(name, ast.Name):
                            given_back.add(name.id)
                            places.setdefault(name.id, assign)
    return {name: places[name] for name in sorted(taken & given_back)}


def kept_lists(node: ast.For | ast.AsyncFor) -> dict[str, ast.AST]:
    """Lists and dicts that the loop fills and also takes from: skip connections and the like."""
    filled: dict[str, ast.AST] = {}
    taken: set[str] = set()
    for part in walk(node):
        if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name):
            if isinstance(part.ctx, ast.Store):
                filled.setdefault(part.value.id, part)
            elif isinstance(part.ctx, ast.Load):
                taken.add(part.value.id)
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            owner = part.func.value
            if isinstance(owner, ast.Name) and part.func.attr in ("append", "pop"):
                if part.func.attr == "append":
                    filled.setdefault(owner.id, part)
                else:
                    taken.add(owner.id)
    return {name: place for name, place in filled.items() if name in taken}


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
        walker.assign(each.target, Opaque(tags=derived(tags_of(items))), scope)
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


def as_buffer(value: Value, name: str) -> Value:
    """A tensor made once and kept on the module is a buffer that outlives the step."""
    made = value.items[0] if isinstance(value, Seq) and value.items else value
    if isinstance(made, Opaque) and made.shape:
        return with_tags(value, {f"buffer:{name}"})
    return value
