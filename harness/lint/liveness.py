"""Does code look at what a variable, or a part of an object, holds before it overwrites it?"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from harness.lint.tree import is_name, last_name, walk

_MUTATORS = frozenset(
    {"append", "extend", "insert", "add", "update", "setdefault", "push", "put"}
    | {"copy_", "fill_", "index_copy_", "index_add_", "scatter_", "add_", "set_"}
)
_OVERWRITES = frozenset({"copy_", "fill_"})


@dataclass(frozen=True)
class Local:
    """A variable of a function."""

    name: str

    def is_in(self, node: ast.AST) -> bool:
        """Is the variable looked at in the node?"""
        return any(
            is_name(part, self.name) and isinstance(getattr(part, "ctx", None), ast.Load)
            for part in walk(node)
        )

    def is_stored_by(self, target: ast.AST) -> bool:
        """Does an assignment to the target overwrite it?"""
        return any(is_name(part, self.name) for part in walk(target))


@dataclass(frozen=True)
class Slot:
    """A part of an object that code writes: `self.shared['k']`, `self.buffer`, `cache.key`."""

    text: str

    def is_in(self, node: ast.AST) -> bool:
        """Is the slot, or the object that holds it, looked at in the node?"""
        return any(self._overlaps(text) for text in _looked_at(node, root_of(self.text)))

    def is_stored_by(self, target: ast.AST) -> bool:
        """Does an assignment to the target overwrite it?"""
        if isinstance(target, ast.Subscript) and not isinstance(
            target.slice, ast.Constant | ast.Slice | ast.Tuple
        ):
            # A key that is computed may be another one.
            return False
        return slot_text(target) == self.text

    def _overlaps(self, text: str) -> bool:
        return self.text.startswith(text) or text.startswith(self.text)


def slot_text(node: ast.AST) -> str:
    """`self.shared['k']` for a constant key; for a slice or a computed key, what it is taken of."""
    if isinstance(node, ast.Subscript):
        base = slot_text(node.value)
        constant = isinstance(node.slice, ast.Constant)
        return f"{base}[{ast.unparse(node.slice)}]" if constant and base else base
    if isinstance(node, ast.Attribute):
        base = slot_text(node.value)
        return f"{base}.{node.attr}" if base else ""
    return node.id if isinstance(node, ast.Name) else ""


def root_of(text: str) -> str:
    """The object that a slot is a part of: `self.shared` of `self.shared['k'].x`."""
    head, dot, rest = text.partition(".")
    name = rest.replace("[", ".").split(".")[0]
    return f"self.{name}" if dot and head == "self" else text.replace("[", ".").split(".")[0]


def written(node: ast.AST, root: str) -> dict[str, ast.AST]:
    """The slots of an object that the code writes, and where."""
    slots: dict[str, ast.AST] = {}
    for part in walk(node):
        text = ""
        if isinstance(part, ast.Subscript | ast.Attribute) and isinstance(part.ctx, ast.Store):
            # `self.shared = x` is another object, and no part of the shared one.
            is_part = isinstance(part, ast.Subscript) or slot_text(part) != root
            text = slot_text(part) if is_part else ""
        elif isinstance(part, ast.Call) and _is_mutation(part):
            text = slot_text(_changed_by(part))
        if text and root_of(text) == root:
            slots.setdefault(text, part)
    return slots


def _is_mutation(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr in _MUTATORS


def _changed_by(call: ast.Call) -> ast.expr:
    assert isinstance(call.func, ast.Attribute)
    return call.func.value


def _looked_at(node: ast.AST, root: str) -> Iterable[str]:
    """The parts of an object that the code looks at, each as a whole expression."""
    skipped: set[int] = set()
    for part in walk(node):
        if id(part) in skipped or not isinstance(part, ast.Subscript | ast.Attribute | ast.Name):
            continue
        text = slot_text(part)
        if not text or root_of(text) != root:
            continue
        inner: ast.AST = part
        while isinstance(inner, ast.Subscript | ast.Attribute):
            inner = inner.value
            skipped.add(id(inner))
        if isinstance(part.ctx, ast.Load) and len(text) >= len(root):
            head, dot, method = text.rpartition(".")
            if dot and method in _MUTATORS:
                continue
            yield head if dot and method in ("get", "items", "values", "keys", "pop") else text


class _Fate(Enum):
    """Statements do one of these with a variable first."""

    READ = "read"
    """Some path looks at it."""
    GONE = "gone"
    """Every path overwrites it, or ends."""
    KEPT = "kept"
    """No path looks at it, and on some it is still there."""


def is_read(variable: Local | Slot, body: Iterable[ast.stmt]) -> bool:
    """Does some path through the statements look at what the variable held before them?"""
    return _of_block(variable, body) is _Fate.READ


def _of_block(variable: Local | Slot, body: Iterable[ast.stmt]) -> _Fate:
    for statement in body:
        fate = _of_statement(variable, statement)
        if fate is not _Fate.KEPT:
            return fate
    return _Fate.KEPT


def _of_statement(variable: Local | Slot, node: ast.stmt) -> _Fate:
    match node:
        case ast.If():
            if variable.is_in(node.test):
                return _Fate.READ
            return _joined(_of_block(variable, node.body), _of_block(variable, node.orelse))
        case ast.For() | ast.AsyncFor() | ast.While():
            head = node.test if isinstance(node, ast.While) else node.iter
            if variable.is_in(head) or _of_block(variable, node.body) is _Fate.READ:
                return _Fate.READ
            return _of_block(variable, node.orelse)
        case ast.With() | ast.AsyncWith():
            if any(variable.is_in(item.context_expr) for item in node.items):
                return _Fate.READ
            return _of_block(variable, node.body)
        case ast.AugAssign():
            looked_at = variable.is_in(node.value) or variable.is_stored_by(node.target)
            return _Fate.READ if looked_at else _Fate.KEPT
        case ast.Assign() | ast.AnnAssign():
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if _is_kept_result(variable, node.value, targets):
                return _Fate.KEPT
            if node.value is None or variable.is_in(node.value):
                return _Fate.READ if node.value is not None else _Fate.KEPT
            if any(variable.is_stored_by(target) for target in targets):
                return _Fate.GONE
            return _Fate.READ if any(variable.is_in(t) for t in targets) else _Fate.KEPT
        case ast.Expr(value=ast.Call() as call) if _is_mutation(call):
            if any(variable.is_in(argument) for argument in call.args):
                return _Fate.READ
            overwrites = last_name(call.func) in _OVERWRITES
            stored = variable.is_stored_by(_changed_by(call))
            return _Fate.GONE if overwrites and stored else _Fate.KEPT
        case ast.Return() | ast.Raise():
            return _Fate.READ if variable.is_in(node) else _Fate.GONE
    return _Fate.READ if variable.is_in(node) else _Fate.KEPT


def _is_kept_result(
    variable: Local | Slot, value: ast.expr | None, targets: Iterable[ast.expr]
) -> bool:
    """`other = compute(x) if name is None else name`: it spares computing, and holds no state."""
    match value:
        case ast.IfExp(
            test=ast.Compare(ast.Name(asked), [ast.Is()], [ast.Constant(None)]),
            body=body,
            orelse=ast.Name(otherwise),
        ) if isinstance(variable, Local) and asked == otherwise == variable.name:
            stored = any(variable.is_stored_by(target) for target in targets)
            return not stored and not variable.is_in(body)
    return False


def _joined(one: _Fate, other: _Fate) -> _Fate:
    if _Fate.READ in (one, other):
        return _Fate.READ
    return _Fate.GONE if one is other is _Fate.GONE else _Fate.KEPT
