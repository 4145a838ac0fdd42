"""Rule PP501: load_weights must pass over parameters that belong to other ranks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from harness.lint.engine import Engine
from harness.lint.parts import methods_of, parts_of
from harness.lint.project import ClassRef, Spot
from harness.lint.report import Finding, Severity
from harness.lint.rules import finding
from harness.lint.stage import Stage
from harness.lint.tree import FUNCTIONS, Function, dotted, given_to, walk

_ENDS = (ast.Continue, ast.Return, ast.Break, ast.Raise)


def check(engine: Engine, stage: Stage) -> Iterator[Finding]:
    """Unguarded look-ups in every load_weights that sees decoder layers of this model."""
    parts = list(parts_of(engine, stage.instance))
    for part in parts:
        below = [p for p in parts if p.path == part.path or p.path.startswith(part.path + ".")]
        if not any(layers.partial for p in below for layers in p.layers.values()):
            continue
        methods = {m.node.name: m for m in methods_of(engine, part.cls)}
        load = methods.get("load_weights")
        if load is not None:
            own = {name: method.node for name, method in methods.items()}
            memo = load.owner.module.memo
            key = ("weights", load.node, *own.values())
            if key not in memo:
                memo[key] = list(_load(load.owner, load.node, own))
            yield from memo[key]


def _load(owner: ClassRef, load: Function, methods: dict[str, Function]) -> Iterator[Finding]:
    seen: set[int] = set()
    for function in _reached(load, methods):
        tables = _tables(function)
        for lookup in _lookups(function, tables):
            if id(lookup) in seen:
                continue
            seen.add(id(lookup))
            if _is_guarded(lookup, function, tables) or _is_guarded_by_callers(
                lookup, function, load, methods
            ):
                continue
            text = f"{ast.unparse(lookup)} is looked up without asking whether this rank has it"
            name = f"{owner.name}.{function.name}"
            about = finding("PP501", Spot(owner.module, lookup), text, symbol=name)
            optional = _is_optional(lookup, function)
            yield replace(about, severity=Severity.WARNING) if optional else about


def _reached(load: Function, methods: dict[str, Function]) -> Iterator[Function]:
    """load_weights, and the methods of the class that it hands its table of parameters to."""
    yield load
    tables = _tables(load)
    for call in _calls(load):
        name = dotted(call.func)
        inner = methods.get(name.removeprefix("self.")) if name.startswith("self.") else None
        given = [a for a in given_to(call) if isinstance(a, ast.Name)]
        if inner is not None and any(a.id in tables for a in given):
            yield inner


def _calls(node: ast.AST) -> list[ast.Call]:
    return [part for part in walk(node) if isinstance(part, ast.Call)]


def _tables(function: Function) -> set[str]:
    """Variables that map parameter names to parameters of this module."""
    names = {a.arg for a in function.args.args if a.arg in ("params_dict", "param_dict")}
    for part in walk(function):
        match part:
            case ast.Assign(
                targets=targets,
                value=ast.Call(func=ast.Name("dict"), args=[ast.Call(func=source), *_]),
            ) if dotted(source) == "self.named_parameters":
                names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return names


def _lookups(function: Function, tables: set[str]) -> Iterator[ast.Subscript]:
    for part in walk(function):
        match part:
            case ast.Subscript(value=ast.Name(name), ctx=ast.Load()) if name in tables:
                if not isinstance(part.slice, ast.Constant):
                    yield part


def _upwards(node: ast.AST, root: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """From a node up to the root: a child, its parent, and the parent's field that holds it."""
    parents: dict[ast.AST, tuple[ast.AST, str]] = {}
    for parent in walk(root):
        for name, value in ast.iter_fields(parent):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    parents[child] = (parent, name)
    while node in parents:
        parent, name = parents[node]
        yield node, parent, name
        node = parent


def _is_guarded(node: ast.AST, function: ast.AST, tables: set[str]) -> bool:
    """Is the node reached only when the name is one of this rank's parameters?"""
    for child, parent, field in _upwards(node, function):
        if isinstance(parent, ast.If | ast.IfExp) and field in ("body", "orelse"):
            if _asks(parent.test, tables) is (field == "body"):
                return True
        elif (isinstance(parent, ast.Try) and field == "body") or (
            isinstance(parent, ast.comprehension | ast.For) and _filtered(parent.iter, tables)
        ):
            return True
        siblings = getattr(parent, field)
        if isinstance(siblings, list):
            before = siblings[: siblings.index(child)]
            if any(_leaves(sibling, tables) for sibling in before):
                return True
    return False


def _is_optional(node: ast.AST, function: ast.AST) -> bool:
    """Only for checkpoints that carry scales of a quantised KV cache: most do not."""
    return any(
        isinstance(parent, ast.If) and field == "body" and "scale" in ast.unparse(parent.test)
        for _, parent, field in _upwards(node, function)
    )


def _asks(test: ast.expr, tables: set[str]) -> bool | None:
    """True: the test holds only for own parameters. False: it holds for all foreign ones."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _asks(test.operand, tables)
        return None if inner is None else not inner
    if isinstance(test, ast.BoolOp):
        verdicts = [_asks(part, tables) for part in test.values]
        wanted = isinstance(test.op, ast.And)
        return wanted if wanted in verdicts else None
    if isinstance(test, ast.NamedExpr):
        return _asks(test.value, tables)
    if isinstance(test, ast.Call):
        return False if "missing" in dotted(test.func).rsplit(".", 1)[-1] else None
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        right = test.comparators[0]
        if isinstance(right, ast.Call) and dotted(right.func).endswith(".keys"):
            right = right.func.value if isinstance(right.func, ast.Attribute) else right
        if isinstance(right, ast.Name) and (right.id in tables or "param" in right.id):
            if isinstance(test.ops[0], ast.In):
                return True
            if isinstance(test.ops[0], ast.NotIn):
                return False
    names = {p.attr for p in walk(test) if isinstance(p, ast.Attribute)}
    if names & {"start_layer", "end_layer"}:
        # A range test on the layer's number: which way round it stands, its author knows.
        return False
    return None


def _leaves(statement: ast.AST, tables: set[str]) -> bool:
    """`if <not ours>: continue`, before the look-up."""
    if not isinstance(statement, ast.If) or _asks(statement.test, tables) is not False:
        return False
    return isinstance(statement.body[-1], _ENDS)


def _filtered(node: ast.expr, tables: set[str]) -> bool:
    """Does the iterable drop foreign names itself?"""
    return any(
        isinstance(part, ast.comprehension) and any(_asks(test, tables) for test in part.ifs)
        for part in walk(node)
    )


def _is_guarded_by_callers(
    lookup: ast.Subscript, function: Function, load: Function, methods: dict[str, Function]
) -> bool:
    """In a helper that gets the name as a parameter: does every call of it stand behind a guard?"""
    around = (parent for _, parent, _ in _upwards(lookup, function))
    helper = next((parent for parent in around if isinstance(parent, FUNCTIONS)), function)
    if helper is load or not isinstance(lookup.slice, ast.Name):
        return False
    if lookup.slice.id not in {a.arg for a in helper.args.args}:
        return False
    names = (helper.name, f"self.{helper.name}")
    verdicts: list[bool] = []
    for caller in {load, *methods.values()}:
        calls = [call for call in _calls(caller) if dotted(call.func) in names]
        tables = _tables(caller) if calls else set()
        verdicts += [_is_guarded(call, caller, tables) for call in calls]
    return bool(verdicts) and all(verdicts)
