"""Does code look at what a place holds before it overwrites it?

A place is written as the code does: `x`, `self.shared['k']`, `self.buffer`, `cache.key`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache

from harness.lint.tree import KEPT, find, last_name

_MUTATORS = frozenset(
    {"append", "extend", "insert", "add", "update", "setdefault", "push", "put"}
    | {"copy_", "fill_", "index_copy_", "index_add_", "scatter_", "add_", "set_"}
)
_OVERWRITES = frozenset({"copy_", "fill_"})
_READERS = frozenset({"get", "items", "values", "keys", "pop"})


def place_text(node: ast.AST) -> str:
    """`self.shared['k']` for a constant key; for a slice or a computed key, what it is taken of."""
    if isinstance(node, ast.Subscript):
        base = place_text(node.value)
        constant = isinstance(node.slice, ast.Constant)
        return f"{base}[{ast.unparse(node.slice)}]" if constant and base else base
    if isinstance(node, ast.Attribute):
        base = place_text(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


def _root_of(text: str) -> str:
    """The object that a place is a part of: `self.shared` of `self.shared['k'].x`."""
    head, *rest = text.replace("[", ".").split(".")
    return f"self.{rest[0]}" if head == "self" and rest else head


def written(node: ast.AST, root: str) -> dict[str, ast.AST]:
    """The parts of an object that the code writes, and where."""
    places: dict[str, ast.AST] = {}
    for text, part in _writes(node):
        # `self.shared = x` is another object, and no part of the shared one.
        is_part = not isinstance(part, ast.Attribute) or text != root
        if is_part and _root_of(text) == root:
            places.setdefault(text, part)
    return places


@lru_cache(KEPT)
def _writes(node: ast.AST) -> list[tuple[str, ast.AST]]:
    """Every place that the code writes, and where."""
    parts = find(node, ast.Subscript, ast.Attribute, ast.Call)
    texts = (
        _mutated_by(part)
        if isinstance(part, ast.Call)
        else place_text(part)
        if isinstance(part.ctx, ast.Store)
        else ""
        for part in parts
    )
    return [(text, part) for text, part in zip(texts, parts, strict=True) if text]


def _mutated_by(call: ast.Call) -> str:
    """`x` of `x.append(1)`; empty for a call that changes nothing in place."""
    is_mutation = isinstance(call.func, ast.Attribute) and call.func.attr in _MUTATORS
    return place_text(call.func).rpartition(".")[0] if is_mutation else ""


def _overlap(text: str, other: str) -> bool:
    same = bool(other) and _root_of(text) == _root_of(other)
    return same and (text.startswith(other) or other.startswith(text))


def _is_in(place: str, node: ast.AST) -> bool:
    """Does the node look at the place, or at the object that holds it?"""
    root = _root_of(place)
    return any(_overlap(place, text) for text in _looked_at(node, root))


def _is_stored_by(place: str, target: ast.AST) -> bool:
    """Does an assignment to the target overwrite the place?"""
    if isinstance(target, ast.Tuple | ast.List):
        return any(_is_stored_by(place, each) for each in target.elts)
    if isinstance(target, ast.Subscript) and not isinstance(
        target.slice, ast.Constant | ast.Slice | ast.Tuple
    ):
        # A key that is computed may be another one.
        return False
    return place_text(target) == place


def _looked_at(node: ast.AST, root: str) -> Iterable[str]:
    """The parts of an object that the code looks at, each as a whole expression."""
    skipped: set[int] = set()
    for part in find(node, ast.Subscript, ast.Attribute, ast.Name):
        if id(part) in skipped:
            continue
        text = place_text(part)
        if not text or _root_of(text) != root:
            continue
        inner: ast.AST = part
        while isinstance(inner, ast.Subscript | ast.Attribute):
            inner = inner.value
            skipped.add(id(inner))
        if isinstance(part.ctx, ast.Load) and len(text) >= len(root):
            head, dot, method = text.rpartition(".")
            if not (dot and method in _MUTATORS):
                yield head if dot and method in _READERS else text


class _Fate(Enum):
    """Statements do one of these with a place first."""

    READ = "read"
    """Some path looks at it."""
    GONE = "gone"
    """Every path overwrites it, or ends."""
    KEPT = "kept"
    """No path looks at it, and on some it is still there."""


def is_read(place: str, body: Iterable[ast.stmt]) -> bool:
    """Does some path through the statements look at what the place held before them?"""
    return _of_block(place, body) is _Fate.READ


def _of_block(place: str, body: Iterable[ast.stmt]) -> _Fate:
    fates = (_of_statement(place, statement) for statement in body)
    return next((fate for fate in fates if fate is not _Fate.KEPT), _Fate.KEPT)


def _of_statement(place: str, node: ast.stmt) -> _Fate:
    match node:
        case ast.If():
            if _is_in(place, node.test):
                return _Fate.READ
            fates = {_of_block(place, node.body), _of_block(place, node.orelse)}
            if _Fate.READ in fates:
                return _Fate.READ
            return _Fate.GONE if fates == {_Fate.GONE} else _Fate.KEPT
        case ast.For() | ast.AsyncFor() | ast.While():
            head = node.test if isinstance(node, ast.While) else node.iter
            if _is_in(place, head) or is_read(place, node.body):
                return _Fate.READ
            return _of_block(place, node.orelse)
        case ast.With() | ast.AsyncWith():
            if any(_is_in(place, item.context_expr) for item in node.items):
                return _Fate.READ
            return _of_block(place, node.body)
        case ast.Try():
            if any(is_read(place, handler.body) for handler in node.handlers):
                return _Fate.READ
            return _of_block(place, [*node.body, *node.orelse, *node.finalbody])
        case ast.AugAssign():
            looked_at = _is_in(place, node.value) or _overlap(place, place_text(node.target))
            return _Fate.READ if looked_at else _Fate.KEPT
        case ast.Assign() | ast.AnnAssign(value=ast.expr()):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stored = any(_is_stored_by(place, target) for target in targets)
            assert node.value is not None
            if not stored and _is_kept_result(place, node.value):
                return _Fate.KEPT
            if _is_in(place, node.value) or any(_is_in(place, target) for target in targets):
                return _Fate.READ
            return _Fate.GONE if stored else _Fate.KEPT
        case ast.AnnAssign():
            return _Fate.KEPT
        case ast.Expr(value=ast.Call() as call) if text := _mutated_by(call):
            if any(_is_in(place, argument) for argument in call.args):
                return _Fate.READ
            overwrites = last_name(call.func) in _OVERWRITES and text == place
            return _Fate.GONE if overwrites else _Fate.KEPT
        case ast.Return() | ast.Raise():
            return _Fate.READ if _is_in(place, node) else _Fate.GONE
    return _Fate.READ if _is_in(place, node) else _Fate.KEPT


def _is_kept_result(place: str, value: ast.expr) -> bool:
    """`other = compute(x) if name is None else name`: it spares computing, and holds no state."""
    match value:
        case ast.IfExp(
            test=ast.Compare(ast.Name(asked), [ast.Is()], [ast.Constant(None)]),
            body=body,
            orelse=ast.Name(otherwise),
        ):
            return asked == otherwise == place and not _is_in(place, body)
    return False
