"""Loops over decoder layers, as they are written: what goes into a layer and comes out of it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import lru_cache

from harness.lint.liveness import is_read, place_text, written
from harness.lint.tree import KEPT, Function, Loop, dotted, find, given_to, parameter_names, walk


@lru_cache(KEPT)
def layer_calls(loop: Loop) -> list[ast.Call]:
    """Calls of a layer inside of the loop."""
    # A layer is the loop's target, or `x = self.layers[i]`.
    names = {name.id for name in find(loop.target, ast.Name)}
    for part in find(loop, ast.Assign):
        match part:
            case ast.Assign(targets, ast.Subscript(table)) if dotted(table).endswith("layers"):
                names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return [
        call
        for call in find(loop, ast.Call)
        if (isinstance(call.func, ast.Name) and call.func.id in names)
        or (isinstance(call.func, ast.Subscript) and dotted(call.func.value).endswith("layers"))
    ]


def given_names(call: ast.Call) -> set[str]:
    """Variables, and attributes of self, that are arguments of a call."""
    return {name for a in given_to(call) if (name := _variable(a))}


def read_by_layers(call: ast.Call, forwards: Sequence[Function]) -> set[str]:
    """Variables of a call whose value some layer looks at before it overwrites it.

    Where the class of the layers is not known (no `forwards`), they look at all.
    """
    if not forwards or any(isinstance(a, ast.Starred) for a in call.args):
        return given_names(call)
    return {
        name
        for forward in forwards
        for name, parameter in _parameters_of(call, forward)
        if parameter is None or is_read(parameter, forward.body)
    }


def _parameters_of(call: ast.Call, forward: Function) -> list[tuple[str, str | None]]:
    """Each variable of the call, and the parameter that takes it."""
    names = parameter_names(forward)[1:]
    pairs: list[tuple[str, str | None]] = []
    for position, value in enumerate(call.args):
        pairs.append((_variable(value), names[position] if position < len(names) else None))
    for keyword in call.keywords:
        known = keyword.arg if keyword.arg in names else None
        pairs.append((_variable(keyword.value), known))
    return [(name, parameter) for name, parameter in pairs if name]


@lru_cache(KEPT)
def carried_names(loop: Loop, forwards: tuple[Function, ...] = ()) -> dict[str, ast.AST]:
    """Variables that a layer takes, and that what a layer gave back ends up in."""
    calls = layer_calls(loop)
    ids = {id(call) for call in calls}
    taken = set[str]().union(*(read_by_layers(call, forwards) for call in calls))
    assigns = find(loop, ast.Assign)
    places: dict[str, ast.AST] = {}
    for _ in range(2):  # once for what the layer returns, once for copies of it
        for assign in assigns:
            inside = walk(assign.value)
            from_layer = any(id(part) in ids for part in inside)
            copied = isinstance(assign.value, ast.Name | ast.IfExp | ast.Tuple) and any(
                isinstance(part, ast.expr) and _variable(part) in places for part in inside
            )
            if from_layer or copied:
                for part in (p for target in assign.targets for p in find(target, ast.expr)):
                    places.setdefault(_variable(part), assign)
    return {name: places[name] for name in sorted(taken & set(places))}


@lru_cache(KEPT)
def kept_state(
    loop: Loop, names: frozenset[str], forwards: tuple[Function, ...]
) -> dict[str, ast.AST]:
    """Variables, and attributes of self, in which a round of the loop leaves state for a later one.

    Lists and dicts that it fills and takes from (skip connections), what is set to a part of the
    state (the `names`) under a condition, and objects that the layers fill and read.
    """
    kept = _filled(loop)
    for part in find(loop, ast.Assign):
        if not names.isdisjoint(name.id for name in find(part.value, ast.Name)):
            for target in part.targets:
                text = place_text(target) if isinstance(target, ast.Name | ast.Attribute) else ""
                is_own = isinstance(target, ast.Name) or text.startswith("self.")
                if is_own and text not in names and is_read(text, loop.body):
                    kept.setdefault(text, part)
    for call in layer_calls(loop):
        for forward in forwards:
            for name, parameter in _parameters_of(call, forward):
                slots = written(forward, parameter) if parameter is not None else {}
                if any(is_read(slot, forward.body) for slot in slots):
                    kept.setdefault(name, call)
    return kept


def _filled(loop: Loop) -> dict[str, ast.AST]:
    """Lists and dicts, of the function or of self, that the loop fills and also takes from."""
    filled: dict[str, ast.AST] = {}
    taken: set[str] = set()
    for part in find(loop, ast.Subscript, ast.Call):
        if isinstance(part, ast.Subscript):
            owner = _variable(part.value)
            if isinstance(part.ctx, ast.Store):
                filled.setdefault(owner, part)
            elif isinstance(part.ctx, ast.Load):
                taken.add(owner)
        elif isinstance(part.func, ast.Attribute):
            owner = _variable(part.func.value)
            if part.func.attr == "append":
                filled.setdefault(owner, part)
            elif part.func.attr == "pop":
                taken.add(owner)
    for call in layer_calls(loop):
        taken |= {_variable(value) for value in given_to(call)}
    return {name: place for name, place in filled.items() if name and name in taken}


def _variable(node: ast.expr) -> str:
    """`x` or `self.x`; empty for anything else."""
    text = place_text(node) if isinstance(node, ast.Name | ast.Attribute) else ""
    return text if "." not in text or text.startswith("self.") else ""
