"""Syntax trees: walking them, and small questions about nodes."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import TypeAlias

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"
Loop: TypeAlias = "ast.For | ast.AsyncFor"

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_walked: dict[ast.AST, list[ast.AST]] = {}


def walk(root: ast.AST) -> list[ast.AST]:
    """The node and all nodes below it, level by level, as `ast.walk` gives them.

    Those of a function are kept: checks go over the same functions many times.
    """
    known = _walked.get(root)
    if known is not None:
        return known
    nodes = [root]
    for node in nodes:
        for name in node._fields:
            value = getattr(node, name, None)
            if value.__class__ is list:
                nodes += [item for item in value if isinstance(item, ast.AST)]
            elif isinstance(value, ast.AST) and value._fields:
                nodes.append(value)
    if isinstance(root, FUNCTIONS):
        _walked[root] = nodes
    return nodes


def forget() -> None:
    """Let go of all functions walked so far."""
    _walked.clear()


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
