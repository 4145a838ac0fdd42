"""Attribution for the report: from the records of a run and its PP=1 captures."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..capture.store import Store
from ..checks.attribution import Judged, Place, Prefix, attribute, attribute_baselines
from .schema import AttributionRecord, ItemRecord

if TYPE_CHECKING:
    from ..capture.record import Capture
    from ..plan.points import Point
    from ..plan.sweep import Sweep


def attribution_records(
    sweep: "Sweep", points: "Sequence[Point]", records: Sequence[ItemRecord]
) -> list[AttributionRecord]:
    """Return what each patch of a sweep's series did, at PP=1 and at PP=N."""
    prefixes = [
        Prefix(variant.name, tuple(patch.name for patch in variant.patches))
        for variant in sweep.variants
    ]
    mine = {point.id: point for point in points}
    judged: dict[str, dict[Place, Judged]] = {}
    baselines: dict[str, dict[str, Capture]] = {}
    store = Store(sweep.store)
    for record in records:
        point = mine.get(record.point)
        if point is None:
            continue
        place = (point.model, point.pp, point.profile, point.tp, record.verdict.check)
        errors = (one.code for one in record.findings if one.severity == "error")
        judged.setdefault(point.variant, {})[place] = Judged(
            record.verdict.verdict, frozenset(errors)
        )
        of_variant = baselines.setdefault(point.variant, {})
        key = _baseline_key(record, point)
        if key and point.model not in of_variant and (capture := store.find(key)):
            of_variant[point.model] = capture
    found = [*attribute_baselines(prefixes, baselines), *attribute(prefixes, judged)]
    return [
        AttributionRecord.model_validate({**asdict(one), "pin": sweep.pin.version}) for one in found
    ]


def _baseline_key(record: ItemRecord, point: "Point") -> str | None:
    if point.profile != "parity" or point.tp != 1:
        return None
    return next((cell.key for cell in record.cells if cell.pp == 1), None)
