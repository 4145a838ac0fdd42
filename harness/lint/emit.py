"""Makes findings out of rules and places."""

from __future__ import annotations

import ast

from harness.lint.catalogue import RULES
from harness.lint.project import Module
from harness.lint.report import Finding, Severity
from harness.lint.trace import Spot


def finding(
    code: str,
    module: Module,
    where: ast.AST | int,
    message: str,
    *,
    symbol: str = "",
    severity: Severity | None = None,
) -> Finding:
    """A finding of a rule at a node (or line) of a module."""
    rule = RULES[code]
    line = where if isinstance(where, int) else int(getattr(where, "lineno", 1))
    column = 1 if isinstance(where, int) else int(getattr(where, "col_offset", 0)) + 1
    return Finding(
        code=code,
        severity=severity or rule.severity,
        path=str(module.path),
        line=line or 1,
        column=column,
        message=message,
        fix=rule.fix,
        symbol=symbol,
        runners=(("V1", rule.v1), ("V2", rule.v2)),
    )


def at(
    code: str, spot: Spot, message: str, *, symbol: str = "", severity: Severity | None = None
) -> Finding:
    """A finding at a spot that the interpreter noted."""
    return finding(code, spot.module, spot.node, message, symbol=symbol, severity=severity)
