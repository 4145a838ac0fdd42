"""From verdicts and captures to the records of report.json."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from ..capture.record import Capture
from ..checks.expectations import Judgement, JudgementKind
from ..checks.finding import Verdict
from ..plan.cell import Cell
from ..plan.points import Point
from .schema import CellRecord, FindingRecord, VerdictRecord

# Outputs of a capture that are equal bit by bit wherever nothing else changed, and their files.
_OUTPUTS = {"logits": "logits.f32", "answers": "gsm8k.jsonl"}


@dataclass(frozen=True)
class ItemRecord:
    """Part of a report that one pytest item leaves."""

    verdict: VerdictRecord
    findings: list[FindingRecord]
    cells: list[CellRecord]


def cell_record(point: Point, cell: Cell, capture: Capture, pin: str, *, fresh: bool) -> CellRecord:
    """Record the cell of a point; `fresh` says that this run started its engine.

    `pin` is the version of vLLM.
    """
    manifest = capture.manifest
    return CellRecord(
        **asdict(replace(point, pin=pin)),
        id=point.id,
        status=capture.status,
        seconds=manifest.seconds,
        began=manifest.began,
        phases=manifest.phases,
        devices=list(manifest.devices),
        peak_bytes=manifest.peak_bytes,
        expected_bytes=manifest.expected_bytes,
        partition=list(cell.partition) if cell.partition else None,
        fresh=fresh,
        key=cell.key,
        outputs={
            name: manifest.files[file] for name, file in _OUTPUTS.items() if file in manifest.files
        },
        effective=asdict(manifest.effective) if manifest.effective else None,
    )


def item_record(
    check: str,
    point: Point,
    pin: str,
    verdict: Verdict,
    judgement: Judgement,
    cells: list[CellRecord],
) -> ItemRecord:
    """Record one pytest item for the report; `pin` is the version of vLLM."""
    where = {**asdict(replace(point, pin=pin)), "check": check}
    return ItemRecord(
        verdict=VerdictRecord(
            **where,
            point=point.id,
            verdict=verdict.outcome,
            expected=judgement.kind is JudgementKind.EXPECTED,
            summary=verdict.summary,
            reason=judgement.reason,
            figures=verdict.figures,
        ),
        findings=[FindingRecord(**where, **asdict(finding)) for finding in verdict.findings],
        cells=cells,
    )


def junit_properties(record: ItemRecord) -> list[tuple[str, object]]:
    """List the verdict of an item and its figures as JUnit's properties; lists are left out."""
    verdict = record.verdict
    figures = [
        (f"pp.{name}", value)
        for name, value in verdict.figures.items()
        if isinstance(value, int | float | str)
    ]
    return [("pp.point", verdict.point), ("pp.verdict", verdict.verdict.value), *figures]


def unique_cells(cells: Iterable[CellRecord]) -> list[CellRecord]:
    """Keep each cell once, by id: the record of who made its capture, if one of them did.

    Another may have been met first, of a worker or machine that found the capture in its store.
    """
    unique: dict[str, CellRecord] = {}
    for cell in cells:
        known = unique.setdefault(cell.id, cell)
        if cell.fresh and not known.fresh:
            unique[cell.id] = cell
    return sorted(unique.values(), key=lambda cell: cell.id)
