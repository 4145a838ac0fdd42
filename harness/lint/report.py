"""What the lint hands out: findings, the severity they carry, and the report that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Severity(str, Enum):
    """How much a finding weighs. Errors and warnings make the exit status 1; info never does."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    # As enum.StrEnum does, which Python 3.10 lacks.
    __str__ = str.__str__


_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True)
class Finding:
    """One thing that the lint has to say about one place in one file."""

    code: str
    severity: Severity
    path: str
    line: int
    column: int
    message: str
    cure: str
    symbol: str = ""
    """The class (and key) that it is about: stable where line numbers move."""
    runners: tuple[tuple[str, str], ...] = field(default=())
    """How each model runner of vLLM shows the fault: (("V1", "silent"), ("V2", "loud"))."""

    @property
    def sort_key(self) -> tuple[str, int, int, str, str]:
        """Order of the report: by file, then by place, then by code."""
        return (self.path, self.line, _ORDER[self.severity], self.code, self.message)


@dataclass(frozen=True)
class LintReport:
    """The outcome of one lint: findings in order, what was looked at, and what was waived."""

    findings: tuple[Finding, ...]
    files: int
    """Python files that were in the given paths."""
    analysed: int
    """Those that speak of PP at all, and were therefore parsed."""
    classes: int
    """Classes that claim pipeline parallelism (by themselves or through a base class)."""
    waived: int = 0

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The findings that count toward exit status 1."""
        return tuple(f for f in self.findings if f.severity is not Severity.INFO)

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(1 for f in self.findings if f.severity is severity)
