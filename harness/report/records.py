"""From verdicts and captures to report.json: the records of each item, and the report of a run."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import __version__
from ..capture.record import Capture
from ..capture.store import Store
from ..checks.expectations import Expectations, Judgement, JudgementKind
from ..checks.finding import Verdict
from ..plan.cell import Cell
from ..plan.hosts import host_identity
from ..plan.points import Point
from ..plan.sweep import Sweep
from .attribution import attribution_records
from .reproduce import lasting
from .schema import SCHEMA, CellRecord, FindingRecord, Report, VerdictRecord

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


def in_all(reasons: Sequence[list[str]]) -> list[str]:
    """Keep the reasons that are in each list: under these entries no point of any pin falls."""
    return [reason for reason in reasons[0] if all(reason in others for others in reasons)]


def run_report(
    sweeps: Mapping[str, Sweep],
    expectations: Mapping[str, Expectations],
    devices: int,
    items: list[ItemRecord],
    arguments: Iterable[object],
    store: Store,
) -> Report:
    """Build the report of a run; `sweeps` and `expectations` are by the pin of their points.

    `arguments` are those that pytest was given. The captures of the run are in `store`: those at
    PP=1 tell which patch moved the model itself.
    """
    unused = [expectations[pin].not_applicable(sweep.points) for pin, sweep in sweeps.items()]
    report = Report(
        schema=SCHEMA,
        environment=_environment(list(sweeps.values()), devices, arguments),
        cells=unique_cells(cell for item in items for cell in item.cells),
        verdicts=[item.verdict for item in items],
        findings=[finding for item in items for finding in item.findings],
        not_applicable=in_all(unused),
    )
    return report.model_copy(update={"attribution": attribution_records(report, store)})


def _environment(sweeps: list[Sweep], devices: int, arguments: Iterable[object]) -> dict[str, Any]:
    sweep, options = sweeps[0], sweeps[0].options
    environment = {
        "pp_harness": __version__,
        "arguments": lasting(arguments),
        **sweep.facts,
        "host": host_identity(sweep.device),
        "device": str(sweep.device),
        "devices": devices,
        **options.settings,
        "gsm8k": options.gsm8k,
        "gsm8k_limit": options.gsm8k_limit,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    if options.shard is not None:
        environment["shard"] = "{}/{}".format(*options.shard)
    if asked := {label: each.words for label, each in sweep.servings.items() if each.words}:
        environment["serving"] = asked
    if len(sweeps) > 1:
        environment["pins"] = {sweep.pin.version: sweep.facts for sweep in sweeps}
    return environment
