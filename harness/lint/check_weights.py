"""Rule PP501: load_weights must pass over parameters that belong to other ranks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

from harness.lint.engine import Engine
from harness.lint.project import ClassRef, Spot
from harness.lint.report import Finding
from harness.lint.rules import finding
from harness.lint.stage import Stage
from harness.lint.tree import FUNCTIONS, Function, dotted, find, parameter_names, walk

_ENDS = (ast.Continue, ast.Return, ast.Break, ast.Raise)


def check(engine: Engine, stage: Stage) -> Iterator[Finding]:
    """Unguarded look-ups in every load_weights that sees decoder layers of this model."""
    for part in stage.parts:
        if any(layers.partial for p in stage.below(part) for layers in p.layers.values()):
            definition = engine.project.find_method(part.cls, "load_weights")
            if definition is not None:
                yield from _load(*definition)


def _load(owner: ClassRef, load: Function) -> Iterator[Finding]:
    tables = _tables(load)
    for lookup in _lookups(load, tables):
        if not _is_guarded(lookup, load, tables) and not _by_callers(lookup, load, tables):
            text = f"{ast.unparse(lookup)} is looked up without asking whether this rank has it"
            symbol = f"{owner.name}.{load.name}"
            mild = _is_optional(lookup, load)
            yield finding("PP501", Spot(owner.module, lookup), text, symbol=symbol, mild=mild)


def _tables(function: Function) -> set[str]:
    """Variables that map parameter names to parameters of this module."""
    names = {a.arg for a in function.args.args if a.arg in ("params_dict", "param_dict")}
    for part in find(function, ast.Assign):
        match part:
            case ast.Assign(
                targets=targets,
                value=ast.Call(func=ast.Name("dict"), args=[ast.Call(func=source), *_]),
            ) if dotted(source) == "self.named_parameters":
                names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return names


def _lookups(function: Function, tables: set[str]) -> Iterator[ast.Subscript]:
    for part in find(function, ast.Subscript) if tables else ():
        match part:
            case ast.Subscript(value=ast.Name(name), ctx=ast.Load()) if name in tables:
                if not isinstance(part.slice, ast.Constant):
                    yield part


def _upwards(node: ast.AST, root: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """From a node up to the root: a child, its parent, and the parent's field that holds it."""
    parents = _parents(root)
    while node in parents:
        parent, name = parents[node]
        yield node, parent, name
        node = parent


@lru_cache(8)
def _parents(root: ast.AST) -> dict[ast.AST, tuple[ast.AST, str]]:
    parents: dict[ast.AST, tuple[ast.AST, str]] = {}
    for parent in walk(root):
        for name, value in ast.iter_fields(parent):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    parents[child] = (parent, name)
    return parents


def _is_guarded(node: ast.AST, function: ast.AST, tables: set[str]) -> bool:
    """Is the node reached only when the name is one of this rank's parameters?"""
    for child, parent, field in _upwards(node, function):
        if isinstance(parent, ast.If | ast.IfExp) and field in ("body", "orelse"):
            if _asks(parent.test, tables) is (field == "body"):
                return True
        elif isinstance(parent, ast.Try) and field == "body":
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
    names = {part.attr for part in find(test, ast.Attribute)}
    if names & {"start_layer", "end_layer"}:
        # A range test on the layer's number: which way round it stands, its author knows.
        return False
    return None


def _leaves(statement: ast.AST, tables: set[str]) -> bool:
    """`if <not ours>: continue`, before the look-up."""
    if not isinstance(statement, ast.If) or _asks(statement.test, tables) is not False:
        return False
    return isinstance(statement.body[-1], _ENDS)


def _by_callers(lookup: ast.Subscript, load: Function, tables: set[str]) -> bool:
    """In a function inside, which is given the name: does each call stand behind a guard?"""
    around = (parent for _, parent, _ in _upwards(lookup, load))
    helper = next((parent for parent in around if isinstance(parent, FUNCTIONS)), load)
    names = parameter_names(helper)
    if helper is load or not isinstance(lookup.slice, ast.Name) or lookup.slice.id not in names:
        return False
    calls = [call for call in find(load, ast.Call) if dotted(call.func) == helper.name]
    return bool(calls) and all(_is_guarded(call, load, tables) for call in calls)
