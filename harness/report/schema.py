"""The schema of report.json, version 1.

Fields are added. Two had another name before, which is still read: `stage` was `rank`, `fix` was
`cure`.
"""

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ..capture.manifest import Status
from ..checks.attribution import Attribution
from ..checks.finding import Outcome, Severity

SCHEMA = "pp-harness-report/1"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class _OfPoint(_Model):
    """A record of a point; older reports lack what is at its default."""

    variant: str
    model: str
    pp: int
    tp: int = 1
    profile: str = "parity"
    kernels: str = "default"
    pin: str = ""
    serving: str = ""


class FindingRecord(_OfPoint):
    """A finding. `stage` is a pipeline stage, `place` a file:line of the tree under test."""

    code: str
    severity: Severity
    check: str
    stage: int | None = Field(default=None, validation_alias=AliasChoices("stage", "rank"))
    boundary: str | None = None
    key: str | None = None
    layer: int | None = None
    place: str | None = None
    message: str
    evidence: dict[str, Any] = Field(default_factory=dict)
    fix: str = Field(validation_alias=AliasChoices("fix", "cure"))

    @property
    def where(self) -> str:
        """Stage, boundary, layer and key in words."""
        parts = [
            f"stage {self.stage}" if self.stage is not None else "",
            f"boundary {self.boundary}" if self.boundary else "",
            f"layer {self.layer}" if self.layer is not None else "",
            self.key or "",
        ]
        return ", ".join(part for part in parts if part)


class VerdictRecord(_OfPoint):
    """The verdict of one check of one point; `expected` says that expected.toml foresees it.

    `point` is the id of the point, as pytest's items have it; empty in older reports. `check` is
    a check of this version or of another: a report of any age can be read.
    """

    point: str = ""
    check: str
    verdict: Outcome
    expected: bool
    summary: str
    reason: str = ""
    figures: dict[str, Any] = Field(default_factory=dict)

    @property
    def is_unexpected_pass(self) -> bool:
        """Whether it passes although a finding is expected: only such a pass has a reason."""
        return self.verdict is Outcome.PASS and bool(self.reason)

    @property
    def known(self) -> bool:
        """Whether it is no pass and expected.toml foresees it."""
        return self.expected and self.verdict is not Outcome.PASS

    @property
    def good(self) -> bool:
        """Whether the run may end green with it."""
        if self.verdict is Outcome.PASS:
            return not self.is_unexpected_pass
        return self.known or self.verdict is Outcome.NOT_APPLICABLE


class CellRecord(_OfPoint):
    """An engine: its end, and its seconds by phase.

    `began` is in seconds since the epoch; `phases` maps each phase to its start and end in seconds
    after that. `devices` are core numbers or GPU indices; `peak_bytes` is the most memory that each
    rank held, of its GPU or, on the CPU, resident; `expected_bytes` what was predicted of the rank
    that holds most.
    """

    id: str
    status: Status
    seconds: dict[str, float]
    began: float | None = None
    phases: dict[str, tuple[float, float]] = Field(default_factory=dict)
    devices: list[int] = Field(default_factory=list)
    peak_bytes: list[int] = Field(default_factory=list)
    expected_bytes: int = 0
    partition: list[int] | None
    fresh: bool
    key: str
    outputs: dict[str, str] = Field(default_factory=dict)
    effective: dict[str, Any] | None = None


class Report(_Model):
    """A whole run."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    environment: dict[str, Any]
    cells: list[CellRecord]
    verdicts: list[VerdictRecord]
    findings: list[FindingRecord]
    not_applicable: list[str] = Field(default_factory=list)
    attribution: list[Attribution] = Field(default_factory=list)
