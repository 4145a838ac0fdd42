"""Join the reports of a sweep that was sharded over several machines: pure, one report out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import BadInputError
from .schema import SCHEMA, CellRecord, FindingRecord, Report, VerdictRecord

REPORT = "report.json"
# What may differ between the machines of one sweep; all of their values are kept.
_PER_MACHINE = ("host", "devices", "platform", "python")
_SHARD = "shard"


def read_report(path: Path) -> Report:
    """Read a report file, or `report.json` of a folder.

    Raises:
        BadInputError: if it is not there or is no report of ours.
    """
    path = path if path.is_file() else path / REPORT
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, ValidationError) as error:
        raise BadInputError(f"{path}: no report of pp-harness: {error}") from error


def join_reports(reports: Mapping[str, Report]) -> Report:
    """Return one report of several, by name; verdicts in the order of the sweep.

    Raises:
        BadInputError: if they are not of one sweep, judge the same point differently, or if a
            shard is missing.
    """
    environment = _environment(reports)
    verdicts: dict[tuple[Any, ...], VerdictRecord] = {}
    findings: dict[tuple[Any, ...], list[FindingRecord]] = {}
    cells: dict[str, CellRecord] = {}
    for name, report in reports.items():
        for verdict in report.verdicts:
            place = _place(verdict)
            known = verdicts.setdefault(place, verdict)
            if known.verdict != verdict.verdict:
                where = "-".join(map(str, place))
                raise BadInputError(
                    f"{name}: {where} is {verdict.verdict} here and {known.verdict} in another "
                    "report; they are not shards of one sweep"
                )
            if known is verdict:
                findings[place] = [one for one in report.findings if _place(one) == place]
        for cell in report.cells:
            earlier = cells.setdefault(cell.id, cell)
            if cell.fresh and not earlier.fresh:
                cells[cell.id] = cell
    ordered = sorted(verdicts, key=_order(environment, list(verdicts)))
    return Report(
        schema=SCHEMA,
        environment=environment,
        cells=sorted(cells.values(), key=lambda cell: cell.id),
        verdicts=[verdicts[place] for place in ordered],
        findings=[finding for place in ordered for finding in findings[place]],
        not_applicable=[
            reason
            for reason in next(iter(reports.values())).not_applicable
            if all(reason in report.not_applicable for report in reports.values())
        ],
    )


def _place(record: VerdictRecord | FindingRecord) -> tuple[Any, ...]:
    where = record.pin, record.variant, record.model, record.profile, record.tp
    return *where, record.pp, record.check


def _order(environment: Mapping[str, Any], places: Sequence[tuple[Any, ...]]) -> Any:
    """Return the sort key of a place: variants in series order, the rest as first met."""
    first: dict[Any, int] = {}
    for _, variant, model, *_ in places:
        first.setdefault(("model", model), len(first))
        first.setdefault(("variant", variant), len(first))
    series = list(environment.get("trees", {}))
    checks = ("engine", "contract", "logits", "accuracy")

    def key(place: tuple[Any, ...]) -> tuple[Any, ...]:
        pin, variant, model, profile, tp, pp, check = place
        rank = series.index(variant) if variant in series else len(series)
        variants = rank, first["variant", variant]
        return pin, *variants, first["model", model], tp, profile, pp, checks.index(check)

    return key


def _environment(reports: Mapping[str, Report]) -> dict[str, Any]:
    """Return what all reports share, and every value of what may differ between machines."""
    (first, known), *rest = reports.items()
    joined = dict(known.environment)
    for name, report in rest:
        for field in {**joined, **report.environment}:
            mine, theirs = joined.get(field), report.environment.get(field)
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
    """Raise `BadInputError` unless all of I/N are there, or no report is a shard."""
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
