"""What the terminal says of findings: a line each at the end, and a sentence with evidence."""

from collections.abc import Sequence
from typing import Any

from .schema import FindingRecord, ItemRecord
from .text import figure, one_line

_WIDTH = 160


def finding_lines(records: Sequence[ItemRecord]) -> list[str]:
    """Return a line for each finding that fails the run, and one that counts them."""
    bad = [one for one in records if not _is_good(one)]
    lines = [line for one in bad for line in _of_item(one)]
    known = sum(one.verdict.expected for one in records)
    told = f"; {known} known, see expected.toml" if known else ""
    if not bad:
        return [f"No finding in {len(records)} checks{told}."]
    return [*lines, f"{len(bad)} of {len(records)} checks fail{told}."]


def explain(record: ItemRecord, reason: str) -> str:
    """Return why an item fails: the reason, then place, evidence and cure of each error."""
    lines = [one_line(reason)]
    for one in _errors(record):
        if one_line(one.message) not in lines[0]:
            lines.append(one_line(f"{one.code} {one.message}"))
        where = [
            f"stage {one.rank}" if one.rank is not None else "",
            f"boundary {one.boundary}" if one.boundary else "",
            f"layer {one.layer}" if one.layer is not None else "",
            one.key or "",
            one.place or "",
        ]
        place = one_line(", ".join(part for part in where if part))
        lines.append(f"  {one.code}: {place}" if place else f"  {one.code}")
        lines += [f"  {line}" for line in _evidence(one.evidence)]
        lines.append(f"  cure: {one_line(one.cure)}")
    return "\n".join(lines)


def _is_good(record: ItemRecord) -> bool:
    """Whether the run may end green with it; a verdict that passes with a reason is a cured one."""
    one = record.verdict
    passes = one.verdict == "pass" and not one.reason
    return one.expected or passes or one.verdict == "not-applicable"


def _errors(record: ItemRecord) -> list[FindingRecord]:
    errors = [one for one in record.findings if one.severity == "error"]
    return errors or [one for one in record.findings if one.severity == "warning"]


def _of_item(record: ItemRecord) -> list[str]:
    verdict, errors = record.verdict, _errors(record)
    if verdict.verdict == "pass" or not errors:
        return [f"{record.point}: {verdict.check} {one_line(verdict.reason or verdict.summary)}"]
    return [
        one_line(f"{record.point}: {one.code} {one.message}")
        + (f" ({one_line(one.place)})" if one.place else "")
        for one in errors
    ]


def _evidence(evidence: dict[str, Any]) -> list[str]:
    """Return the numbers of a finding on one line, and one changed answer on another."""
    numbers = ", ".join(
        f"{name} {figure(value)}"
        for name, value in evidence.items()
        if isinstance(value, int | float)
    )
    lines = [f"evidence: {one_line(numbers)}"] if numbers else []
    for one in evidence.get("examples", ())[:1]:
        if isinstance(one, dict) and "question" in one:
            lines.append(f"asked: {one_line(one['question'], _WIDTH)}")
            lines.append(f"PP=1:  {one_line(one['baseline'], _WIDTH)}")
            lines.append(f"here:  {one_line(one['candidate'], _WIDTH)}")
    return lines
