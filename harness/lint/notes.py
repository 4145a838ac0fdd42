"""Notes that a walk takes beside the values: guards, layer loops, operations around them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from functools import lru_cache

from harness.lint import loops
from harness.lint.conditions import place_of
from harness.lint.project import Module, Spot
from harness.lint.trace import Carried, Note, Role, Step, Trace
from harness.lint.tree import KEPT, Function, Loop, dotted, find, given_to
from harness.lint.values import (
    NO_TAGS,
    UNKNOWN,
    Const,
    Env,
    Null,
    Opaque,
    Seq,
    Value,
    kinds,
    nullness,
    tags_of,
    with_tags,
)

# Methods and functions that change what a tensor holds; the others move, cast or slice it.
_CHANGING = frozenset(
    {"repeat", "repeat_interleave", "tile", "expand", "einsum", "matmul", "mm", "bmm", "linear"}
    | {"mul", "div", "add", "sub", "pow", "neg", "square", "sqrt", "rsqrt", "exp", "mean", "sum"}
    | {"cumsum", "tanh", "sigmoid", "relu", "silu", "gelu", "softmax"}
)
_JOINING = frozenset({"cat", "concat", "stack"})
# Modules of the model that only move, cast or slice what they are given.
_MOVING = ("gather", "scatter", "chunk", "shard", "pad", "cast", "dtype", "drop", "identity")
_BEHIND_THE_LAYERS = ("norm", "ln_f", "head", "pool", "proj", "classifier")
_OPERATORS: dict[type[ast.operator], str] = {
    **{ast.Mult: "*", ast.Div: "/", ast.Add: "+", ast.Sub: "-", ast.Pow: "**", ast.MatMult: "@"}
}


@lru_cache(KEPT)
def assigned_names(function: Function) -> frozenset[str]:
    """Variables that plain assignments of the function set."""
    return frozenset(
        name.id
        for assign in find(function, ast.Assign)
        for target in assign.targets
        for name in ([target] if isinstance(target, ast.Name) else getattr(target, "elts", ()))
        if isinstance(name, ast.Name)
    )


def ties_head(node: ast.Assign) -> bool:
    """Does the statement make a head out of another module, as in `self.lm_head = self.embed`?"""
    match node:
        case ast.Assign(targets=[ast.Attribute(attr=name), *_], value=ast.Attribute()):
            return "head" in name
    return False


@lru_cache(KEPT)
def takes_part(forward: Function) -> bool:
    """Does a forward without intermediate_tensors send all the same, as an encoder may?"""
    return any(
        p.id == "IntermediateTensors"
        if isinstance(p, ast.Name)
        else p.attr in ("is_first_rank", "is_last_rank")
        for statement in forward.body
        for p in find(statement, ast.Name, ast.Attribute)
    )


def changed_in_place(node: ast.expr) -> ast.expr:
    """`x` of `x.mul_(2)`; the node itself where it is no such call."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = node.func.attr
        if name.endswith("_") and not name.startswith("_"):
            return node.func.value
    return node


@lru_cache(KEPT)
def casts_to_own(method: Function) -> bool:
    """Does a method cast to a dtype that an attribute of self holds?"""
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "to"
        and any(dotted(a).startswith("self.") for a in given_to(call))
        for call in find(method, ast.Call)
    )


def guard(trace: Trace, node: ast.If, env: Env) -> None:
    """Note an `if` that is false on this rank because of a first-rank-only parameter."""
    for name in find(node.test, ast.Name):
        for parameter in kinds(env.get(name.id, UNKNOWN), "first-only:"):
            trace.dead_guards[id(node)] = parameter


def layer_loop(
    trace: Trace, module: Module, node: Loop, env: Env, forwards: tuple[Function, ...]
) -> dict[str, ast.AST]:
    """Note what a loop over layers takes along, and return it."""
    trace.loops += 1
    through_layers = loops.carried_names(node, forwards)
    kept = loops.kept_state(node, frozenset(through_layers), forwards)
    carried = {**kept, **through_layers}
    for name, place in carried.items():
        initial = tags_of(env.get(name, UNKNOWN))
        note = Carried(Spot(module, place), initial, by_layers=name in through_layers)
        trace.carried.setdefault(name, note)
    stored = {name.id for name in find(node, ast.Name) if isinstance(name.ctx, ast.Store)}
    for call in loops.layer_calls(node):
        for name in (loops.given_names(call) & env.keys()) - stored:
            trace.layer_arguments.setdefault(name, (nullness(env[name]), Spot(module, call)))
    if trace.role is Role.FIRST:
        for part in (part for statement in node.body for part in find(statement, ast.Name)):
            if f"input:{part.id}" in tags_of(env.get(part.id, UNKNOWN)):
                trace.loop_inputs.setdefault(part.id, Spot(module, part))
    else:
        for call in loops.layer_calls(node):
            given = loops.given_names(call) & {"input_ids"}
            if given and "param:input_ids" in tags_of(env.get("input_ids", UNKNOWN)):
                text = (
                    "layers are given input_ids, which the V2 runner gives to the first rank only"
                )
                trace.notes.append(Note("PP604", Spot(module, call), text))
    return carried


def kept_on_module(value: Value, name: str) -> Value:
    """A tensor made once and kept on the module is a buffer that outlives the step."""
    made = value.items[0] if isinstance(value, Seq) and value.items else value
    if isinstance(made, Opaque) and "made" in made.tags:
        return with_tags(value, {f"buffer:{name}"})
    return value


def returned_items(returns: Iterable[Value]) -> list[Opaque]:
    """The items of what a layer returns; none where the returns differ in their form.

    An item is None where it is on every path, has each dtype that it is cast to on some path, and
    is a parameter (`same:`) where it is that, untouched, on every path.
    """
    rows = [
        value.items if isinstance(value, Seq) and not value.open else (value,) for value in returns
    ]
    if not rows or len({len(row) for row in rows}) != 1:
        return []
    items: list[Opaque] = []
    for column in zip(*rows, strict=True):
        null = {nullness(value) for value in column}
        tags = NO_TAGS.union(*map(tags_of, column))
        is_one = len(tags) == 1 and all(tags_of(value) == tags for value in column)
        kept = ("dtype:", "same:") if is_one and null == {Null.UNKNOWN} else ("dtype:",)
        known = Null.YES if null == {Null.YES} else Null.UNKNOWN
        items.append(Opaque(known, frozenset(tag for tag in tags if tag.startswith(kept))))
    return items


# ---- operations outside of the loops over layers


def is_state(value: Value) -> bool:
    """Is the value computed from what this rank received, or from what its layers gave?"""
    return any(tag.startswith(("read:", "carry:")) for tag in tags_of(value))


def asks_shape(test: ast.expr, env: Env) -> bool:
    """Does a test ask for the shape of the state? What it guards is done once, not on each rank."""
    return any(
        part.attr in ("dim", "ndim", "shape", "size")
        and is_state(env.get(place_of(part.value) or "", UNKNOWN))
        for part in find(test, ast.Attribute)
    )


def arithmetic(operator: ast.operator, other: ast.expr, by: Value) -> str:
    """`* self.scale` for a product; empty where nothing changes, as by a factor of one."""
    sign = _OPERATORS.get(type(operator), "")
    changes_nothing = isinstance(by, Const) and by.value == (1 if sign in ("*", "/") else 0)
    return f"{sign} {ast.unparse(other)}" if sign and not changes_nothing else ""


@lru_cache(KEPT)
def changes(call: ast.Call) -> str:
    """The text of a call that changes what a tensor holds: `self.norm`, `.repeat(1, 4)`."""
    func = call.func
    name = dotted(func)
    head, _, attribute = name.rpartition(".")
    last = attribute or name or (func.attr if isinstance(func, ast.Attribute) else "")
    if head.startswith("self"):
        return "" if any(word in last for word in _MOVING) else name
    if last.rstrip("_") in _CHANGING or "norm" in last or last in _JOINING:
        if not isinstance(func, ast.Attribute) or head in ("torch", "F", "nn.functional"):
            return last
        arguments = ", ".join(ast.unparse(a) for a in call.args)
        return f".{last}({arguments})"
    return ""


def applied(trace: Trace, spot: Spot, text: str, operands: Sequence[Value]) -> frozenset[str]:
    """Note an operation outside of the layers; the tag of its result if it is on their state.

    Two parts of the state that are put together (a residual that is added) are no operation of
    the model's ends; what is named as one, such as a final norm, is.
    """
    phase = "after" if trace.loops else "before"
    step = Step(phase, text)
    trace.applied.setdefault(step, spot)
    mark = "carry:" if trace.loops else "read:"
    on_state = sum(bool(kinds(operand, mark)) for operand in operands)
    if trace.loops and text in _JOINING:
        return NO_TAGS  # two parts of the state in one key
    named = trace.loops > 0 and any(word in text for word in _BEHIND_THE_LAYERS)
    if on_state == 1 or (on_state and named):
        return frozenset({step.tag})
    return frozenset()
