"""The points of a report: records by point, and the order of a sweep."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ..plan.points import Point
from .schema import FindingRecord, VerdictRecord

Judged = TypeVar("Judged", VerdictRecord, FindingRecord)
Key = TypeVar("Key")


def by_point(records: Iterable[Judged]) -> dict[Point, list[Judged]]:
    """Group records by point, in the order in which points are first met."""
    return _grouped(records, Point.of)


def by_check(records: Iterable[Judged]) -> dict[tuple[Point, str], list[Judged]]:
    """Group records by point and check, in the order in which these are first met."""
    return _grouped(records, lambda record: (Point.of(record), record.check))


def _grouped(records: Iterable[Judged], of: Callable[[Judged], Key]) -> dict[Key, list[Judged]]:
    groups: dict[Key, list[Judged]] = {}
    for record in records:
        groups.setdefault(of(record), []).append(record)
    return groups


def sweep_order(points: Iterable[Point], environment: Mapping[str, Any]) -> list[Point]:
    """Put points in the order of a sweep, each once: releases, variants in series order, models.

    Models come as first met, then settings and PP size. Variants that the series of `environment`
    lacks come last, as first met.
    """
    points = dict.fromkeys(points)
    variants = list(
        dict.fromkeys([*environment.get("trees", {}), *(point.variant for point in points)])
    )
    models = list(dict.fromkeys(point.model for point in points))

    def key(point: Point) -> tuple[Any, ...]:
        names = variants.index(point.variant), models.index(point.model)
        return point.pin, *names, point.settings, point.pp

    return sorted(points, key=key)


def point_name(record: VerdictRecord | FindingRecord) -> str:
    """The id of a record's point as pytest has it; older reports know no pins but the default."""
    known = record.point if isinstance(record, VerdictRecord) else ""
    return known or replace(Point.of(record), pin="").id
