"""Rules PP4xx and PP502: layers and modules that a rank may not have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from harness.lint.emit import at, finding
from harness.lint.engine import Engine
from harness.lint.loops import carried_names, layer_calls
from harness.lint.parts import Method, Part, iterated, layer_paths, methods_of, parts_of
from harness.lint.report import Finding
from harness.lint.stage import Stage
from harness.lint.trace import Role, Spot
from harness.lint.tree import dotted, is_name, walk
from harness.lint.values import Instance, Layers

# Words that show that the code at hand knows that layers may be missing.
_AWARE = ("PPMissingLayer", "start_layer", "end_layer", "is_pp_missing_parameter")
_FIRST_RANK = re.compile(r"^(?!not ).*is_first_rank|intermediate_tensors is None")
_ASKS_ONE = ("hasattr", "getattr", "isinstance")
_ASKS = ("isinstance", "is_pp_missing_parameter", "issubclass", "type")


def check(engine: Engine, stage: Stage) -> Iterator[Finding]:
    """All findings about missing layers of a class and the modules in it."""
    parts = list(parts_of(engine, stage.instance))
    for part in parts:
        paths = layer_paths(parts, part.path)
        if not paths:
            continue
        in_pp = bool(stage.senders[0].sends)
        split = tuple(sorted((path, layers.partial) for path, layers in paths.items()))
        for method in methods_of(engine, part.cls):
            memo = method.owner.module.memo
            key = ("layers", method.node, split, in_pp)
            if key not in memo:
                memo[key] = list(_method(method, paths, in_pp=in_pp))
            yield from memo[key]
    yield from _modules(engine, stage, parts)


def _method(method: Method, paths: dict[str, Layers], *, in_pp: bool) -> Iterator[Finding]:
    aware = _is_aware(method.node)
    sends = _sends(method.node)
    for part in walk(method.node):
        if isinstance(part, ast.For):
            yield from _loop(part, method, paths, aware=aware, sends=sends, in_pp=in_pp)
        elif isinstance(part, ast.Attribute) and not aware:
            layer = _fixed_layer(part.value, paths)
            if layer:
                text = f"{layer} is asked for .{part.attr}, but this rank may not have that layer"
                yield finding("PP403", method.module, part, text, symbol=method.symbol)


def _is_aware(node: ast.AST) -> bool:
    for part in walk(node):
        if isinstance(part, ast.Call) and dotted(part.func) in _ASKS:
            if any(isinstance(p, ast.Name) and p.id in _AWARE for p in walk(part)):
                return True
        # Being assigned, as in __init__, tells nothing.
        elif (
            isinstance(part, ast.Attribute)
            and part.attr in _AWARE
            and isinstance(part.ctx, ast.Load)
        ):
            return True
    return False


def _sends(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Call) and dotted(part.func).endswith("IntermediateTensors")
        for part in walk(node)
    )


def _fixed_layer(node: ast.expr, paths: dict[str, Layers]) -> str:
    """`self.layers[0]` and the like, for a list of which this rank holds a part."""
    if not isinstance(node, ast.Subscript):
        return ""
    layers = paths.get(dotted(node.value))
    index = node.slice.operand if isinstance(node.slice, ast.UnaryOp) else node.slice
    if layers is None or not layers.partial or not isinstance(index, ast.Constant):
        return ""
    return ast.unparse(node)


def _loop(
    node: ast.For,
    method: Method,
    paths: dict[str, Layers],
    *,
    aware: bool,
    sends: bool,
    in_pp: bool,
) -> Iterator[Finding]:
    if sends:
        yield from _local_index(node, method, paths)
    listed, whole = iterated(node.iter)
    if sends and isinstance(node.iter, ast.Call) and dotted(node.iter.func) == "range":
        listed = _indexed(node, paths)
    layers = paths.get(listed)
    if layers is None or not whole:
        return
    targets = [n.id for n in walk(node.target) if isinstance(n, ast.Name)]
    layer = targets[-1] if targets else ""
    called = bool(layer_calls(node))
    if sends and called:
        if layers.partial and not _is_aware(node):
            text = f"{listed} holds PPMissingLayer for the layers of other ranks"
            yield finding("PP401", method.module, node, text, symbol=method.symbol)
        elif not layers.partial and in_pp and _runs_everywhere(node, method):
            text = f"every rank holds and runs all of {listed}"
            yield finding("PP402", method.module, node, text, symbol=method.symbol)
    elif called and layers.partial and not aware and method.node.name == "forward":
        text = (
            f"{listed} is split by make_layers, but what this rank's part computes is not sent on"
        )
        yield finding("PP407", method.module, node, text, symbol=method.symbol)
    elif layers.partial and not _is_aware(node) and layer:
        yield from _assumed(node, layer, listed, method)


def _runs_everywhere(node: ast.For, method: Method) -> bool:
    """Does every rank take the state of the model through the list?"""
    on_first = (
        part
        for part in walk(method.node)
        if isinstance(part, ast.If) and _FIRST_RANK.search(ast.unparse(part.test))
    )
    inside = any(node in walk(statement) for part in on_first for statement in part.body)
    return bool(carried_names(node)) and not inside and not _is_aware(node)


def _indexed(node: ast.For, paths: dict[str, Layers]) -> str:
    """`layer = self.layers[i]` in a loop over numbers: the list that is indexed."""
    listed = (
        dotted(part.value.value)
        for part in walk(node)
        if isinstance(part, ast.Assign) and isinstance(part.value, ast.Subscript)
    )
    return next((name for name in listed if name in paths), "")


def _assumed(node: ast.For, layer: str, listed: str, method: Method) -> Iterator[Finding]:
    for part in walk(node):
        asks = isinstance(part, ast.Call) and dotted(part.func) in _ASKS_ONE
        if isinstance(part, ast.Call) and asks and part.args and is_name(part.args[0], layer):
            if any(isinstance(p, ast.Assert) and p.test is part for p in walk(node)):
                text = f"asserts the class of each of {listed}, PPMissingLayer included"
                yield finding("PP403", method.module, part, text, symbol=method.symbol)
            return
    for part in walk(node):
        if isinstance(part, ast.Attribute) and is_name(part.value, layer):
            text = f"each of {listed} is asked for .{part.attr}, PPMissingLayer included"
            yield finding("PP403", method.module, part, text, symbol=method.symbol)
            return


def _local_index(node: ast.For, method: Method, paths: dict[str, Layers]) -> Iterator[Finding]:
    """enumerate(islice(...)) without a start, whose index is used as a layer number."""
    call = node.iter
    if not (isinstance(call, ast.Call) and dotted(call.func) == "enumerate" and call.args):
        return
    sliced = isinstance(call.args[0], ast.Call | ast.Subscript) and any(
        isinstance(p, ast.Attribute) and p.attr == "start_layer" for p in walk(call.args[0])
    )
    started = len(call.args) > 1 or any(k.arg == "start" for k in call.keywords)
    if not sliced or started or not isinstance(node.target, ast.Tuple):
        return
    index = node.target.elts[0]
    if not isinstance(index, ast.Name):
        return
    for statement in node.body:
        for use, around in _uses(statement, index.id):
            if "start_layer" in around:
                # Added here; or, in an assignment to the index itself, from here on.
                if around.startswith((f"{index.id} =", f"{index.id} +=")):
                    return
                continue
            layers = paths.get(iterated(call.args[0])[0])
            if layers is not None and _ignored_by_layer(node, layers, index.id):
                continue
            code = "PP603" if "aux" in around or "hidden_state(" in around else "PP404"
            text = f"`{index.id}` counts from 0 on every rank, but is used as a layer number"
            yield finding(code, method.module, use, text, symbol=method.symbol)
            return


def _ignored_by_layer(loop: ast.For, layers: Layers, index: str) -> bool:
    """Is the index only handed to layers whose forward does not look at it?"""
    element = layers.element
    forward = element.cls.methods.get("forward") if isinstance(element, Instance) else None
    if forward is None:
        return False
    handed = [k for call in layer_calls(loop) for k in call.keywords if is_name(k.value, index)]
    uses = [p for p in walk(loop) if is_name(p, index) and p is not loop.target]
    looked_at = {p.id for s in forward.body for p in walk(s) if isinstance(p, ast.Name)}
    # One of the uses is the loop's own target.
    return len(uses) == len(handed) + 1 and not any(k.arg in looked_at for k in handed)


def _uses(statement: ast.stmt, name: str) -> Iterator[tuple[ast.AST, str]]:
    """Each use of a variable, with the source of the simple statement or test around it."""
    simple: list[ast.AST] = []
    for part in walk(statement):
        if isinstance(part, ast.If | ast.While):
            simple.append(part.test)
        elif isinstance(part, ast.stmt) and not hasattr(part, "body"):
            simple.append(part)
    for part in simple:
        for use in walk(part):
            if isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load):
                yield use, ast.unparse(part)


def _modules(engine: Engine, stage: Stage, parts: list[Part]) -> Iterator[Finding]:
    ranks: dict[tuple[str, str, Spot], list[str]] = {}
    for role in Role:
        traces = [engine.init_trace(part.instance, role) for part in parts]
        for trace in (*traces, stage.views[role].trace):
            for use in trace.missing_uses:
                ranks.setdefault((use.owner, use.name, use.spot), []).append(role.value)
            for spot in trace.missing_ties if role is Role.LAST else ():
                text = "the head is tied to an embedding that the last rank does not build"
                yield at("PP502", spot, text, symbol=stage.cls.name)
    for (owner, name, spot), roles in ranks.items():
        where = " and ".join(dict.fromkeys(roles))
        text = f"{owner} is a PPMissingLayer on the {where} rank; it has no .{name}"
        yield at("PP405", spot, text, symbol=f"{stage.cls.name}.{name}")
