"""Writes a report as text, JSON or GitHub annotations."""

from __future__ import annotations

import json
from collections.abc import Callable

from harness.lint.report import Finding, LintReport, Severity
from harness.lint.sarif import as_sarif


def _counted(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def as_text(report: LintReport) -> str:
    """One line per finding, as ruff writes them, and a summary."""
    lines = [
        f"{f.path}:{f.line}:{f.column}: {f.code} {f.severity}: {f.message}\n    {f.cure}"
        for f in report.findings
    ]
    counts = ", ".join(
        _counted(report.count(severity), severity, "" if severity is Severity.INFO else "s")
        for severity in Severity
    )
    lines.append(
        f"{counts}; {_counted(report.classes, 'PP class', 'es')} "
        f"in {report.analysed} of {_counted(report.files, 'file', 's')}"
        + (f"; {report.waived} waived" if report.waived else "")
    )
    return "\n".join(lines)


def record(found: Finding) -> dict[str, object]:
    """The JSON object of a finding."""
    return {
        "code": found.code,
        "severity": str(found.severity),
        "path": found.path,
        "line": found.line,
        "column": found.column,
        "message": found.message,
        "cure": found.cure,
        "symbol": found.symbol,
        "runners": dict(found.runners),
    }


def as_json(report: LintReport) -> str:
    """A list of findings."""
    return json.dumps([record(f) for f in report.findings], indent=2)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def as_github(report: LintReport) -> str:
    """Workflow commands that GitHub shows beside the lines."""
    kinds = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
    return "\n".join(
        f"::{kinds[f.severity]} file={_property(f.path)},line={f.line},col={f.column},"
        f"title={_property(f.code)}::{_escaped(f'{f.message}. {f.cure}')}"
        for f in report.findings
    )


RENDERERS: dict[str, Callable[[LintReport], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}
