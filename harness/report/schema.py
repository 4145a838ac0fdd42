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
    """The verdict of one check of one point; `expected` says that expected.toml foresees it."""

    variant: str
    model: str
    pp: int
    check: Literal["engine", "contract", "logits", "accuracy"]
    verdict: Literal["pass", "fail", "blocked", "inconclusive"]
    expected: bool
    summary: str
    reason: str = ""
    figures: dict[str, Any] = Field(default_factory=dict)


class CellRecord(_Model):
    """One engine: what became of it and where its seconds went, by phase."""

    id: str
    variant: str
    model: str
    pp: int
    status: Literal["ok", "failed", "blocked", "not-run"]
    seconds: dict[str, float]
    partition: list[int] | None
    fresh: bool
    key: str
    effective: dict[str, Any] | None = None


class Report(_Model):
    """A whole run."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    environment: dict[str, Any]
    cells: list[CellRecord]
    verdicts: list[VerdictRecord]
    findings: list[FindingRecord]
    not_applicable: list[str] = Field(default_factory=list)


class ItemRecord(_Model):
    """What one pytest item leaves for the report; it travels from xdist workers as JSON."""

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
