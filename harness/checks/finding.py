"""Findings with a place, evidence and a fix, and one verdict for each check."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """Weight of a finding, heaviest first: an error fails its check, the others inform."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Outcome(StrEnum):
    """Answer of a check. Only PASS is a pass."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    BLOCKED = "blocked"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: where, how we know, and the fix.

    `stage` is a pipeline stage, `boundary` the pair of stages around it ("0->1"), `layer` an
    absolute decoder layer, `place` a file and line of the tree under test.
    """

    code: str
    message: str
    fix: str
    severity: Severity = Severity.ERROR
    stage: int | None = None
    boundary: str | None = None
    key: str | None = None
    layer: int | None = None
    place: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Outcome of a check with the findings behind it and one sentence for people."""

    outcome: Outcome
    summary: str
    findings: tuple[Finding, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def error_codes(self) -> frozenset[str]:
        """Codes of the findings that fail the check."""
        return frozenset(f.code for f in self.findings if f.severity is Severity.ERROR)


def judged(findings: list[Finding], summary: str, **figures: object) -> Verdict:
    """Build FAIL with the first error's message, or PASS with `summary`."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not errors:
        return Verdict(Outcome.PASS, summary, tuple(findings), figures)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Verdict(Outcome.FAIL, errors[0].message + more, tuple(findings), figures)


def verdict_of(outcome: Outcome, finding: Finding, **figures: object) -> Verdict:
    """Build the verdict whose summary is the message of its only finding."""
    return Verdict(outcome, finding.message, (finding,), figures)


def blocked_by(cause: Verdict) -> Verdict:
    """Build BLOCKED for a check that has no answer because of the findings of `cause`."""
    codes = ", ".join(sorted({finding.code for finding in cause.findings}))
    return Verdict(Outcome.BLOCKED, f"blocked by {codes}: {cause.summary}")
