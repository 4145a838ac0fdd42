"""What a comparison says: findings with a place, evidence and a cure, and one verdict per check."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Severity(str, Enum):
    """How much a finding weighs: an error fails its check, the others inform."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Outcome(str, Enum):
    """The answer of a check. Only PASS is a pass."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    BLOCKED = "blocked"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, where, how we know, and what to do.

    `rank` is a pipeline stage, `boundary` the pair of stages around it ("0->1"), `layer` an
    absolute decoder layer, `place` a file and line of the tree under test.
    """

    code: str
    severity: Severity
    message: str
    cure: str
    rank: int | None = None
    boundary: str | None = None
    key: str | None = None
    layer: int | None = None
    place: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check with the findings behind it and one sentence for people."""

    outcome: Outcome
    summary: str
    findings: tuple[Finding, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)


def judged(findings: list[Finding], summary: str, **figures: object) -> Verdict:
    """Return FAIL with the first error's message, or PASS with `summary`."""
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if not errors:
        return Verdict(Outcome.PASS, summary, tuple(findings), figures)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Verdict(Outcome.FAIL, errors[0].message + more, tuple(findings), figures)
