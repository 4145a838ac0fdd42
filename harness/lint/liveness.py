"""Does a function look at what a parameter holds, or does it overwrite it first?"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from enum import Enum

from harness.lint.tree import is_name, is_none, walk


class _Fate(Enum):
    """What statements do with a variable first."""

    READ = "read"
    """Some path looks at it."""
    GONE = "gone"
    """Every path overwrites it, or ends."""
    KEPT = "kept"
    """No path looks at it, and on some it is still there."""


def is_read(name: str, body: Iterable[ast.stmt]) -> bool:
    """Does some path through the statements look at the variable's first value?"""
    return _of_block(name, body) is _Fate.READ


def _of_block(name: str, body: Iterable[ast.stmt]) -> _Fate:
    for statement in body:
        fate = _of_statement(name, statement)
        if fate is not _Fate.KEPT:
            return fate
    return _Fate.KEPT


def _of_statement(name: str, node: ast.stmt) -> _Fate:
    match node:
        case ast.If():
            if _reads(name, node.test):
                return _Fate.READ
            return _joined(_of_block(name, node.body), _of_block(name, node.orelse))
        case ast.For() | ast.AsyncFor() | ast.While():
            head = node.test if isinstance(node, ast.While) else node.iter
            if _reads(name, head) or _of_block(name, node.body) is _Fate.READ:
                return _Fate.READ
            return _of_block(name, node.orelse)
        case ast.With() | ast.AsyncWith():
            if any(_reads(name, item.context_expr) for item in node.items):
                return _Fate.READ
            return _of_block(name, node.body)
        case ast.Delete() if any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return _Fate.GONE
        case ast.AugAssign():
            return _Fate.READ if _mentions(name, node) else _Fate.KEPT
        case ast.Assign() | ast.AnnAssign():
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if _is_kept_result(name, node):
                return _Fate.KEPT
            if node.value is not None and _reads(name, node.value):
                return _Fate.READ
            if any(_reads(name, target) for target in targets):
                return _Fate.READ
            stored = node.value is not None and any(_mentions(name, t) for t in targets)
            return _Fate.GONE if stored else _Fate.KEPT
        case ast.Return() | ast.Raise():
            return _Fate.READ if _mentions(name, node) else _Fate.GONE
    return _Fate.READ if _mentions(name, node) else _Fate.KEPT


def _is_kept_result(name: str, node: ast.Assign | ast.AnnAssign) -> bool:
    """`other = compute(x) if name is None else name`: it spares computing, and holds no state."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    value = node.value
    return (
        isinstance(value, ast.IfExp)
        and is_name(value.orelse, name)
        and isinstance(value.test, ast.Compare)
        and is_name(value.test.left, name)
        and isinstance(value.test.ops[0], ast.Is)
        and is_none(value.test.comparators[0])
        and not _mentions(name, value.body)
        and not any(_mentions(name, target) for target in targets)
    )


def _joined(one: _Fate, other: _Fate) -> _Fate:
    if _Fate.READ in (one, other):
        return _Fate.READ
    return _Fate.GONE if one is other is _Fate.GONE else _Fate.KEPT


def _reads(name: str, node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Name) and part.id == name and isinstance(part.ctx, ast.Load)
        for part in walk(node)
    )


def _mentions(name: str, node: ast.AST) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in walk(node))
