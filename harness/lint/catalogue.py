"""The rules of the lint: code, severity, what it means, how each runner shows it, the fix.

`rules.toml` beside this file has them.

`pp-harness lint --explain CODE` prints these records; docs/lint.md lists them.

The V1 runner copies over the *sent* keys into the declared buffer; the V2 runner loops over the
*declared* keys. That is why one fault is loud on one runner and silent on the other.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from harness.lint.report import Severity


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
    other: str = ""
    """The V2 model runner shows it so, where that differs."""

    @property
    def v2(self) -> str:
        """The V2 model runner shows it so."""
        return self.other or self.v1


def _read() -> dict[str, Rule]:
    table = tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))
    return {
        code: Rule(
            code,
            entry["name"],
            Severity(entry["severity"]),
            entry["explanation"],
            entry["fix"],
            entry.get("v1", "-"),
            entry.get("v2", ""),
        )
        for code, entry in table.items()
    }


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
