"""Syntax trees: walking them, and small questions about nodes."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, overload

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"
Loop: TypeAlias = "ast.For | ast.AsyncFor"

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
A = TypeVar("A", bound=ast.AST)
B = TypeVar("B", bound=ast.AST)
C = TypeVar("C", bound=ast.AST)

KEPT = 1 << 14
"""Questions about nodes whose answers are kept: checks go over the same functions many times."""
_NO_NODES = frozenset(
    {"ctx", "op", "ops", "id", "attr", "kind", "type_comment", "conversion", "simple"}
    | {"is_async", "module", "level", "asname"}
)
_LEAVES = (ast.Constant, ast.Global, ast.Nonlocal, ast.alias)


class _Fields(dict[type[ast.AST], tuple[str, ...]]):
    """The fields of each kind of node that can hold nodes, operators left out."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        fields = () if kind in _LEAVES else tuple(f for f in kind._fields if f not in _NO_NODES)
        return self.setdefault(kind, fields)


_FIELDS = _Fields()


@lru_cache(KEPT)
def walk(root: ast.AST) -> list[ast.AST]:
    """The node and all nodes below it, level by level, as `ast.walk` gives them."""
    nodes = [root]
    for node in nodes:
        for name in _FIELDS[node.__class__]:
            value = getattr(node, name)
            if value.__class__ is list:
                nodes += [n for n in value if n is not None] if None in value else value
            elif isinstance(value, ast.AST):
                nodes.append(value)
    return nodes


@overload
def find(root: ast.AST, kind: type[A], /) -> list[A]: ...
@overload
def find(root: ast.AST, kind: type[A], other: type[B], /) -> list[A | B]: ...
@overload
def find(root: ast.AST, kind: type[A], other: type[B], third: type[C], /) -> list[A | B | C]: ...
def find(root: ast.AST, *kinds: type[ast.AST]) -> Any:
    """The nodes of some kinds in what `walk` gives."""
    return _found(root, kinds)


@lru_cache(KEPT)
def _found(root: ast.AST, kinds: tuple[type[ast.AST], ...]) -> list[ast.AST]:
    return [node for node in walk(root) if isinstance(node, kinds)]


@lru_cache(KEPT)
def names_in(root: ast.AST) -> frozenset[str]:
    """The variables and attributes that the code below a node names."""
    names = find(root, ast.Name, ast.Attribute)
    return frozenset(n.id if isinstance(n, ast.Name) else n.attr for n in names)


def dotted(node: ast.expr | None) -> str:
    """`a.b.c` for a chain of names; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    parts.append(node.id)
    return ".".join(reversed(parts))


def last_name(node: ast.expr | None) -> str:
    """`c` of `a.b.c`, also behind a call as in `f().c`; empty where there is no name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_none(node: ast.expr | None) -> bool:
    """Is the expression the literal None?"""
    return isinstance(node, ast.Constant) and node.value is None


def is_name(node: ast.AST | None, name: str) -> bool:
    """Is the node the plain variable of that name?"""
    return isinstance(node, ast.Name) and node.id == name


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The expression that a call passes by keyword."""
    return next((k.value for k in call.keywords if k.arg == name), None)


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    """The expression that a call passes at a position or by keyword."""
    return call.args[position] if len(call.args) > position else keyword(call, name)


def given_to(call: ast.Call) -> list[ast.expr]:
    """All expressions that a call passes."""
    return [*call.args, *(k.value for k in call.keywords)]


def parameter_names(function: Function | ast.Lambda) -> list[str]:
    """Names of the parameters that can be passed by position or by keyword, self included."""
    spec = function.args
    return [a.arg for a in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]


def defaults_of(function: Function | ast.Lambda) -> dict[str, ast.expr]:
    """The default of each parameter that has one."""
    spec = function.args
    names = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    defaults = dict(zip(reversed(names), reversed(spec.defaults), strict=False))
    for parameter, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        if default is not None:
            defaults[parameter.arg] = default
    return defaults


def flat(body: Iterable[ast.stmt | ast.ExceptHandler]) -> list[ast.stmt]:
    """Statements at this level, including those under if, try and with."""
    statements: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            for block in ("body", "handlers", "orelse", "finalbody"):
                statements += flat(getattr(statement, block, []))
        else:
            statements.append(statement)
    return statements
