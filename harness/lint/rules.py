"""The rules of the lint, which `rules.toml` beside this file describes, and findings of them.

The V1 runner copies over the *sent* keys into the declared buffer; the V2 runner loops over the
*declared* keys. That is why one fault is loud on one runner and silent on the other.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from harness.lint.project import Spot
from harness.lint.report import Finding, Severity


@dataclass(frozen=True)
class Rule:
    """One thing that the lint looks for."""

    code: str
    name: str
    severity: Severity
    explanation: str
    fix: str
    v1: str = "-"
    """The V1 model runner shows it so."""
    v2: str = "-"
    """The V2 model runner shows it so; as V1 does where the table has nothing."""


def _read() -> dict[str, Rule]:
    table = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
    for code, entry in table.items():
        entry.update(code=code, severity=Severity(entry["severity"]))
        entry.setdefault("v2", entry.get("v1", "-"))
    return {code: Rule(**entry) for code, entry in table.items()}


RULES = _read()


def explain(code: str) -> str:
    """The page about one rule.

    Raises:
        KeyError: There is no such rule.
    """
    rule = RULES[code.upper()]
    counts = "no" if rule.severity is Severity.INFO else "yes"
    return (
        f"{rule.code} {rule.name} ({rule.severity}; counts toward exit status 1: {counts})\n\n"
        f"{rule.explanation}\n\n"
        f"V1 runner: {rule.v1}\nV2 runner: {rule.v2}\n\nFix: {rule.fix}\n"
    )


def about_file(code: str, path: Path | str, line: int, message: str) -> Finding:
    """A finding of a rule about a line of a file that may not be parsed."""
    rule = RULES[code]
    runners = (("V1", rule.v1), ("V2", rule.v2))
    return Finding(code, rule.severity, str(path), line, 1, message, rule.fix, runners=runners)


def finding(code: str, spot: Spot, message: str, *, symbol: str, mild: bool = False) -> Finding:
    """A finding of a rule at a place, about a class (and key); `mild` makes it a warning."""
    about = about_file(code, spot.module.path, spot.line, message)
    severity = Severity.WARNING if mild else about.severity
    return replace(about, column=spot.column, symbol=symbol, severity=severity)
