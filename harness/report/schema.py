"""The schema of report.json. Version 1; a field is only ever added."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "pp-harness-report/1"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FindingRecord(_Model):
    """One finding. `rank` is a pipeline stage, `place` a file:line of the tree under test."""

    code: str
    severity: Literal["error", "warning", "info"]
    variant: str
    model: str
    pp: int
    tp: int = 1
    profile: str = "parity"
    pin: str = ""
    check: str
    rank: int | None = None
    boundary: str | None = None
    key: str | None = None
    layer: int | None = None
    place: str | None = None
    message: str
    evidence: dict[str, Any] = Field(default_factory=dict)
    cure: str


class VerdictRecord(_Model):
    """The verdict of one check of one point; `expected` says that expected.toml foresees it.

    `point` is the id of the point, as pytest's items have it; empty in older reports.
    """

    point: str = ""
    variant: str
    model: str
    pp: int
    tp: int = 1
    profile: str = "parity"
    pin: str = ""
    check: Literal["engine", "contract", "logits", "accuracy"]
    verdict: Literal["pass", "fail", "blocked", "inconclusive", "not-applicable"]
    expected: bool
    summary: str
    reason: str = ""
    figures: dict[str, Any] = Field(default_factory=dict)


class CellRecord(_Model):
    """One engine: what became of it and where its seconds went, by phase.

    `began` is in seconds since the epoch; `phases` maps each phase to its start and end in seconds
    after that. `devices` are core numbers or GPU indices; `peak_bytes` is the most memory that each
    rank held, of its GPU or, on the CPU, resident.
    """

    id: str
    variant: str
    model: str
    pp: int
    tp: int = 1
    profile: str = "parity"
    pin: str = ""
    status: Literal["ok", "failed", "blocked", "not-run"]
    seconds: dict[str, float]
    began: float | None = None
    phases: dict[str, tuple[float, float]] = Field(default_factory=dict)
    devices: list[int] = Field(default_factory=list)
    peak_bytes: list[int] = Field(default_factory=list)
    partition: list[int] | None
    fresh: bool
    key: str
    outputs: dict[str, str] = Field(default_factory=dict)
    effective: dict[str, Any] | None = None


class AttributionRecord(_Model):
    """What the patches between two neighbouring variants did to a verdict, or to PP=1."""

    patches: list[str]
    before: str
    after: str
    model: str
    pp: int
    pin: str = ""
    effect: Literal["introduced", "revealed", "cured", "hidden", "moved", "broke", "mended"]
    check: str
    codes: list[str]
    message: str
    figures: dict[str, Any] = Field(default_factory=dict)


class Report(_Model):
    """A whole run."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    environment: dict[str, Any]
    cells: list[CellRecord]
    verdicts: list[VerdictRecord]
    findings: list[FindingRecord]
    not_applicable: list[str] = Field(default_factory=list)
    attribution: list[AttributionRecord] = Field(default_factory=list)


class ItemRecord(_Model):
    """What one pytest item leaves for the report; it travels from xdist workers as JSON.

    `point` is the id of the point that it judged.
    """

    point: str
    verdict: VerdictRecord
    findings: list[FindingRecord]
    cells: list[CellRecord]


def merge(
    items: list[ItemRecord], environment: dict[str, Any], not_applicable: list[str]
) -> Report:
    """Join the records of all items, each cell once."""
    cells: dict[str, CellRecord] = {}
    for item in items:
        for cell in item.cells:
            known = cells.get(cell.id)
            # A cell that this run made may be seen first by a worker that found it in the store.
            if known is None or (cell.fresh and not known.fresh):
                cells[cell.id] = cell
    return Report(
        schema=SCHEMA,
        environment=environment,
        cells=sorted(cells.values(), key=lambda cell: cell.id),
        verdicts=[item.verdict for item in items],
        findings=[finding for item in items for finding in item.findings],
        not_applicable=not_applicable,
    )
