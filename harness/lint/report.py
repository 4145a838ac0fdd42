"""Findings, the severity that they carry, and the report that holds them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Severity(StrEnum):
    """Errors and warnings make the exit status 1; info never does."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One thing that the lint has to say about one place in one file."""

    code: str
    severity: Severity
    path: str
    line: int
    column: int
    message: str
    fix: str
    symbol: str = ""
    """The class (and key) that it is about: stable where line numbers move."""
    runners: tuple[tuple[str, str], ...] = ()
    """Each model runner of vLLM, and how it shows the fault: (("V1", "silent"), ("V2", "loud"))."""

    @property
    def sort_key(self) -> tuple[str, int, int, str, str]:
        """Order of the report: by file, then by place, then by code."""
        weight = list(Severity).index(self.severity)
        return (self.path, self.line, weight, self.code, self.message)


@dataclass(frozen=True)
class LintReport:
    """The outcome of one lint: findings in order, what was looked at, and what was waived."""

    findings: tuple[Finding, ...] = ()
    """These decide the exit status: of a change its own findings, and none that is known."""
    others: tuple[Finding, ...] = ()
    """Findings of files that a change touches, and those that a baseline knows."""
    files: int = 0
    """Python files that were in the given paths."""
    analysed: int = 0
    """Those that speak of PP at all."""
    classes: int = 0
    """Classes that claim pipeline parallelism (by themselves or through a base class)."""
    waived: int = 0
    hidden: tuple[str, ...] = ()
    """The words for each kind of finding that `shown` left out."""

    def shown(self, *, verbose: bool, everything: bool) -> LintReport:
        """Return the report without what the user did not ask for.

        Args:
            verbose: Keep info, which never decides the status.
            everything: Keep the findings that do not count.
        """
        kept, others = self.findings, self.others
        hidden: list[str] = []
        if not verbose:
            kept, others = self.failing, _without_info(others)
            if len(kept) < len(self.findings):
                hidden.append(f"{len(self.findings) - len(kept)} info (--verbose)")
        if self.others and not everything:
            hidden.append(f"{len(_without_info(self.others))} that do not count (--all)")
            others = ()
        return replace(self, findings=kept, others=others, hidden=tuple(hidden))

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The findings that count toward exit status 1."""
        return _without_info(self.findings)

    @property
    def unreadable(self) -> bool:
        """Could a file not be read or parsed?"""
        return any(f.code == "PP901" for f in self.findings)

    @property
    def status(self) -> int:
        """The exit status: 2 for a file that was not checked, 1 for errors or warnings."""
        return 2 if self.unreadable else 1 if self.failing else 0

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(f.severity is severity for f in self.findings)


def _without_info(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(f for f in findings if f.severity is not Severity.INFO)
