"""From verdicts and captures to the records of report.json."""

from dataclasses import asdict

from ..capture.record import Capture
from ..checks.expectations import Judgement
from ..checks.finding import Verdict
from ..plan.cell import Cell
from ..plan.points import Point
from .schema import CellRecord, FindingRecord, ItemRecord, VerdictRecord

# What a capture holds that is equal bit by bit wherever nothing else changed.
_OUTPUTS = {"logits": "logits.f32", "answers": "gsm8k.jsonl"}


def cell_record(point: Point, cell: Cell, capture: Capture, pin: str, *, fresh: bool) -> CellRecord:
    """Return what became of the cell of a point; `fresh` says that this run started its engine.

    `pin` is the version of vLLM.
    """
    files = capture.manifest.files
    return CellRecord(
        id=point.id,
        pin=pin,
        variant=cell.variant,
        model=cell.model,
        pp=cell.pp,
        tp=cell.tp,
        profile=cell.profile,
        status=capture.status,
        seconds=capture.manifest.seconds,
        began=capture.manifest.began,
        phases=capture.manifest.phases,
        devices=list(capture.manifest.devices),
        peak_bytes=capture.manifest.peak_bytes,
        partition=list(cell.partition) if cell.partition else None,
        fresh=fresh,
        key=cell.key,
        outputs={name: files[file] for name, file in _OUTPUTS.items() if file in files},
        effective=asdict(effective) if (effective := capture.manifest.effective) else None,
    )


def junit_properties(record: ItemRecord) -> list[tuple[str, object]]:
    """Return the verdict of an item and its figures as JUnit's properties; lists are left out."""
    verdict = record.verdict
    figures = [
        (f"pp.{name}", value)
        for name, value in verdict.figures.items()
        if isinstance(value, int | float | str)
    ]
    return [("pp.point", record.point), ("pp.verdict", verdict.verdict), *figures]


def item_record(
    check: str,
    point: Point,
    pin: str,
    verdict: Verdict,
    judgement: Judgement,
    cells: list[CellRecord],
) -> ItemRecord:
    """Return what one pytest item leaves for the report; `pin` is the version of vLLM."""
    where = {
        "pin": pin,
        "variant": point.variant,
        "model": point.model,
        "pp": point.pp,
        "tp": point.tp,
        "profile": point.profile,
        "check": check,
    }
    return ItemRecord(
        point=point.id,
        verdict=VerdictRecord.model_validate(
            {
                **where,
                "point": point.id,
                "verdict": verdict.outcome.value,
                "expected": judgement.kind == "expected",
                "summary": verdict.summary,
                "reason": judgement.reason,
                "figures": verdict.figures,
            }
        ),
        findings=[
            FindingRecord.model_validate({**where, **asdict(finding)})
            for finding in verdict.findings
        ],
        cells=cells,
    )
