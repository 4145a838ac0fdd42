"""Rule PP611: layers that hand state to later layers through an object that they share."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

from harness.lint.engine import Engine
from harness.lint.liveness import is_read, place_text, written
from harness.lint.project import ClassRef, Spot
from harness.lint.report import Finding
from harness.lint.rules import finding
from harness.lint.stage import Stage, asserts_start
from harness.lint.tree import Function, argument, dotted, find, is_name, last_name, parameter_names
from harness.lint.values import Instance, options_of

_OF_EVERY_RANK = frozenset({"self", "positions", "input_ids", "attn_metadata"})
_MADE = (ast.Dict, ast.List, ast.Call, ast.DictComp, ast.ListComp)


def check(engine: Engine, stage: Stage) -> Iterator[Finding]:
    """State in shared objects, of every list of layers of which a rank holds a part."""
    for part in stage.parts:
        constructor = engine.project.find_method(part.cls, "__init__")
        forward = engine.project.find_method(part.cls, "forward")
        if constructor is None or forward is None:
            continue
        elements = [layers.element for layers in part.layers.values() if layers.partial]
        for option in (option for element in elements for option in options_of(element)):
            if isinstance(option, Instance):
                memo = option.cls.module.memo
                key = ("shared", option.cls, constructor[1], forward[1])
                if key not in memo:
                    memo[key] = list(_of_layer(engine, option.cls, constructor[1], forward[1]))
                if memo[key] and not asserts_start(forward[0].module):
                    yield from memo[key]


def _of_layer(
    engine: Engine, layer: ClassRef, maker: Function, model_forward: Function
) -> Iterator[Finding]:
    definition = engine.project.find_method(layer, "forward")
    if definition is None:
        return
    owner, written_forward = definition
    shared = {
        **dict.fromkeys(_of_everybody(owner, written_forward), ""),
        **_injected(engine, layer, maker),
    }
    methods = engine.project.lineage(layer).methods.values()
    shared = {r: e for r, e in shared.items() if any(written(method, r) for _, method in methods)}
    if not shared:
        return
    forward = _Inliner(engine, layer, written_forward).visit(copy.deepcopy(written_forward))
    for root, expression in shared.items():
        for text, place in written(forward, root).items():
            if is_read(text, forward.body) and not _crosses(model_forward, expression):
                message = (
                    f"`{text}` is left by a layer for later layers in an object that they share: "
                    "those of the next rank do not see it"
                )
                spot = Spot(owner.module, place)
                yield finding("PP611", spot, message, symbol=f"{layer.name}.{text}")


class _Inliner(ast.NodeTransformer):
    """Puts the body of a layer's own methods before the statement that calls them.

    What a layer computes if it is not there yet, of nothing that goes from layer to layer, is left
    out: the first layer of every rank does it.
    """

    def __init__(self, engine: Engine, layer: ClassRef, forward: Function) -> None:
        self.engine = engine
        self.layer = layer
        self.state = frozenset(parameter_names(forward)) - _OF_EVERY_RANK

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        asks = isinstance(node.test, ast.Compare) and isinstance(
            node.test.ops[0], ast.NotIn | ast.Is
        )
        stores = [statement for statement in node.body if isinstance(statement, ast.Assign)]
        if not asks or len(stores) != len(node.body) or node.orelse:
            return node
        names = {name.id for s in stores for name in find(s.value, ast.Name)}
        return node if names & self.state else ast.Pass()

    def visit_Assign(self, node: ast.Expr | ast.Assign) -> ast.AST | list[ast.stmt]:
        if not isinstance(node.value, ast.Call):
            return node
        head, _, name = dotted(node.value.func).partition(".")
        method = self.engine.project.find_method(self.layer, name) if head == "self" else None
        if method is None:
            return node
        body = [
            ast.Expr(s.value or ast.Constant(None)) if isinstance(s, ast.Return) else s
            for s in copy.deepcopy(method[1].body)
        ]
        return [*body, node]

    visit_Expr = visit_Assign  # noqa: N815 - the name that ast calls


def _of_everybody(layer: ClassRef, forward: Function) -> Iterator[str]:
    """Names for objects of the whole process: of the module, of the class, of vLLM's step."""
    yield layer.name
    for prefix, values in (("", layer.module.constants), ("self.", layer.attributes)):
        for name, value in values.items():
            makes = isinstance(value, ast.Call) and last_name(value.func) in ("dict", "list")
            if makes or isinstance(value, ast.Dict | ast.List):
                yield f"{prefix}{name}"
    for part in find(forward, ast.Assign):
        match part:
            case ast.Assign(targets=[ast.Name(name)], value=ast.Call(func=function)):
                if last_name(function) == "get_forward_context":
                    yield name


def _injected(engine: Engine, layer: ClassRef, maker: Function) -> dict[str, str]:
    """Attributes of a layer that hold one object of all layers, and the model's name for it."""
    definition = engine.project.find_method(layer, "__init__")
    if definition is None:
        return {}
    constructor = definition[1]
    names = parameter_names(constructor)[1:]
    attributes = {
        part.value.id: f"self.{part.targets[0].attr}"
        for part in find(constructor, ast.Assign)
        if isinstance(part.targets[0], ast.Attribute)
        and is_name(part.targets[0].value, "self")
        and isinstance(part.value, ast.Name)
        and part.value.id in names
    }
    made: dict[str, ast.AST] = {
        place_text(target): assign
        for assign in maker.body
        if isinstance(assign, ast.Assign) and isinstance(assign.value, _MADE)
        for target in assign.targets
    }
    for call in find(maker, ast.Call):
        buffer = call.args[0] if last_name(call.func) == "register_buffer" and call.args else None
        if isinstance(buffer, ast.Constant) and isinstance(buffer.value, str):
            made[f"self.{buffer.value}"] = call
    shared: dict[str, str] = {}
    for part in find(maker, ast.For):
        # `for layer in self.layers: layer.shared = self.shared`
        match part:
            case ast.For(target=ast.Name(each)):
                for assign in (s for s in part.body if isinstance(s, ast.Assign)):
                    for target in assign.targets:
                        name, text = place_text(target), place_text(assign.value)
                        if text in made and name.startswith(f"{each}."):
                            shared[f"self.{name.removeprefix(f'{each}.')}"] = text
    for call in find(maker, ast.Call):
        offset = 1 if last_name(call.func) == "partial" else 0
        target = call.args[0] if offset and call.args else call.func
        if last_name(target) == layer.name:
            for number, name in enumerate(names):
                value = argument(call, number + offset, name)
                if name in attributes and value is not None and place_text(value) in made:
                    shared[attributes[name]] = place_text(value)
    return shared


def _crosses(forward: Function, expression: str) -> bool:
    """Does the model itself receive or send the object?"""
    return bool(expression) and any(
        place_text(part) == expression
        for statement in find(forward, ast.Assign, ast.Return, ast.Expr)
        if "ntermediate" in ast.unparse(statement)
        for part in find(statement, ast.Attribute, ast.Name)
    )
