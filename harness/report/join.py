"""Join the reports of a sweep that was sharded over several machines: pure, one report out."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..checks.registry import in_order
from ..errors import BadInputError
from ..plan.points import Point
from .attribution import attribution_records
from .order import by_check, sweep_order
from .records import in_all, unique_cells
from .schema import SCHEMA, FindingRecord, Report, VerdictRecord

# What may differ between the machines of one sweep; all of their values are kept.
_PER_MACHINE = ("host", "devices", "platform", "python")
_SHARD = "shard"


def join_reports(reports: Mapping[str, Report]) -> Report:
    """Join reports, by name; verdicts in the order of the sweep, patches attributed anew.

    Raises:
        BadInputError: if they are not of one sweep, judge the same point differently, or if a
            shard is missing.
    """
    environment = _environment(reports)
    verdicts: dict[tuple[Point, str], VerdictRecord] = {}
    findings: dict[tuple[Point, str], list[FindingRecord]] = {}
    for name, report in reports.items():
        of_report = by_check(report.findings)
        for place, (verdict, *_) in by_check(report.verdicts).items():
            known = verdicts.setdefault(place, verdict)
            if known.verdict is not verdict.verdict:
                point, check = place
                raise BadInputError(
                    f"{name}: {check} of {point.id} is {verdict.verdict} here and {known.verdict} "
                    "in another report; they are not shards of one sweep"
                )
            findings.setdefault(place, of_report.get(place, []))
    checks = in_order(check for _, check in verdicts)
    places = [
        (point, check)
        for point in sweep_order((point for point, _ in verdicts), environment)
        for check in checks
        if (point, check) in verdicts
    ]
    parts = reports.values()
    joined = Report(
        schema=SCHEMA,
        environment=environment,
        cells=unique_cells(cell for part in parts for cell in part.cells),
        verdicts=[verdicts[place] for place in places],
        findings=[finding for place in places for finding in findings[place]],
        not_applicable=in_all([part.not_applicable for part in parts]),
        attribution=[record for part in parts for record in part.attribution],
    )
    return joined.model_copy(update={"attribution": attribution_records(joined)})


def _environment(reports: Mapping[str, Report]) -> dict[str, Any]:
    """Facts that all reports share, and every value of those that may differ between machines."""
    (first, report), *rest = reports.items()
    joined = dict(report.environment)
    for name, other in rest:
        for field in {**joined, **other.environment}:
            mine, theirs = joined.get(field), other.environment.get(field)
            if field not in (*_PER_MACHINE, _SHARD) and mine != theirs:
                raise BadInputError(
                    f"{name}: {field} is {theirs!r} and {mine!r} in {first}; "
                    "shards of one sweep share it"
                )
    for field in _PER_MACHINE:
        values = [r.environment[field] for r in reports.values() if field in r.environment]
        different = list(dict.fromkeys(values))
        if different:
            joined[field] = different[0] if len(different) == 1 else different
    _check_shards([r.environment.get(_SHARD) for r in reports.values()])
    joined.pop(_SHARD, None)
    return joined


def _check_shards(shards: Sequence[str | None]) -> None:
    """Raise `BadInputError` unless every shard I/N is among them, or no report is a shard."""
    named = {shard for shard in shards if shard}
    if not named:
        return
    counts = {shard.partition("/")[2] for shard in named}
    if len(counts) > 1 or None in shards:
        raise BadInputError("report merge: shards of different sweeps: " + ", ".join(sorted(named)))
    (count,) = counts
    missing = [f"{i}/{count}" for i in range(1, int(count) + 1) if f"{i}/{count}" not in named]
    if missing:
        raise BadInputError(f"report merge: shard {', '.join(missing)} is missing")
