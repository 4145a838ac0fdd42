"""Attribution for the report: from its verdicts, and from the PP=1 captures in a store."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..capture.record import Capture
from ..capture.store import Store
from ..checks.attribution import Attribution, Judged, Prefix, attribute, attribute_baselines
from ..checks.finding import Severity
from ..plan.points import Point
from .order import by_check
from .schema import Report


def attribution_records(report: Report, store: Store | None = None) -> list[Attribution]:
    """Attribute the verdicts of a report to patches, and the changes of PP=1 as `store` has them.

    Records that the report has already, as one that was joined from others, stay where theirs
    cannot be computed again: at PP=1 where the store lacks a capture, at PP=N where the report does
    not name the patches of its variants.
    """
    records: list[Attribution] = []
    for pin, facts in _facts(report).items():
        prefixes = [Prefix(name, tuple(p)) for name, p in facts.get("variants", {}).items()]
        baselines = _baselines(report, pin, store)
        computed = [
            *attribute_baselines(prefixes, baselines),
            *attribute(prefixes, _judged(report, pin)),
        ]
        given = [
            record
            for record in report.attribution
            if record.pin == pin
            and not _is_computed({prefix.variant for prefix in prefixes}, baselines, record)
        ]
        made = [replace(attribution, pin=pin) for attribution in computed]
        records += _in_order([*made, *given], list(facts.get("trees", {})))
    return records


def _facts(report: Report) -> dict[str, Mapping[str, Any]]:
    """Map each release that was measured to its facts; of one that is only named none are known."""
    environment = report.environment
    pins = environment.get("pins") or {str(environment.get("pin", "")): environment}
    return {**{record.pin: {} for record in report.attribution}, **pins}


def _judged(report: Report, pin: str) -> dict[tuple[Point, str], Judged]:
    findings = by_check(report.findings)
    return {
        place: Judged(
            verdict.verdict,
            frozenset(f.code for f in findings.get(place, ()) if f.severity is Severity.ERROR),
        )
        for place, (verdict, *_) in by_check(report.verdicts).items()
        if verdict.pin == pin
    }


def _baselines(report: Report, pin: str, store: Store | None) -> dict[Point, Capture]:
    return {
        Point.of(cell): capture
        for cell in report.cells
        if store is not None
        and Point.of(cell) == Point(cell.variant, cell.model, 1, pin=pin)
        and (capture := store.find(cell.key)) is not None
    }


def _is_computed(
    variants: set[str], baselines: Mapping[Point, Capture], record: Attribution
) -> bool:
    """Whether the computed records tell all that `record` tells."""
    sides = {record.before, record.after}
    if not sides <= variants:
        return False
    points = (Point(side, record.model, 1, pin=record.pin) for side in sides)
    return record.pp > 1 or all(point in baselines for point in points)


def _in_order(records: list[Attribution], series: list[str]) -> list[Attribution]:
    """Keep each record once, those of PP=1 first, in the order of the series and the models."""
    unique: dict[tuple[Any, ...], Attribution] = {}
    for record in records:
        # Figures at PP=1, and its message that has them, may differ between machines.
        own = record.message if record.pp > 1 else ""
        what = record.before, record.after, record.model, record.pp, record.effect, record.check
        unique.setdefault((*what, *record.codes, own), record)

    def key(record: Attribution) -> tuple[Any, ...]:
        known = record.before in series
        step = series.index(record.before) if known else len(series)
        return record.pp > 1, step, record.model, record.pp

    return sorted(unique.values(), key=key)
