"""Writes a report as text, JSON, GitHub annotations or SARIF: what decides the status first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from harness.lint.report import Finding, LintReport, Severity
from harness.lint.rules import RULES, Rule

_GITHUB = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_SARIF = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def _counted(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def as_text(report: LintReport) -> str:
    """One line per finding, as ruff writes them, and a summary."""
    lines = [_line(f) for f in report.findings]
    if report.others:
        lines.append("not counted: known, or in files that the change only touches")
        lines += [_line(f) for f in report.others]
    counts = [_counted(report.count(kind), kind) for kind in (Severity.ERROR, Severity.WARNING)]
    lines.append(
        f"{', '.join(counts)}; {_counted(report.classes, 'PP class', 'es')} "
        f"in {report.analysed} of {_counted(report.files, 'file')}"
        + (f"; {report.waived} waived" if report.waived else "")
        + (f"; not shown: {' and '.join(report.hidden)}" if report.hidden else "")
    )
    return "\n".join(lines)


def _line(f: Finding) -> str:
    return f"{f.path}:{f.line}:{f.column}: {f.code} {f.severity}: {f.message}\n    {f.fix}"


def as_json(report: LintReport) -> str:
    """A list of findings; `counts` says whether one can decide the exit status."""
    own = [(f, f.severity is not Severity.INFO) for f in report.findings]
    records = [
        {**asdict(f), "runners": dict(f.runners), "counts": counts}
        for f, counts in (*own, *((f, False) for f in report.others))
    ]
    return json.dumps(records, indent=2)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def as_github(report: LintReport) -> str:
    """Workflow commands that GitHub shows beside the lines; what does not count is a notice."""
    commands = [(_GITHUB[f.severity], f) for f in report.findings]
    commands += [("notice", f) for f in report.others]
    return "\n".join(
        f"::{kind} file={_property(f.path)},line={f.line},col={f.column},"
        f"title={_property(f.code)}::{_escaped(f'{f.message}. {f.fix}')}"
        for kind, f in commands
    )


def as_sarif(report: LintReport) -> str:
    """One run of SARIF 2.1.0, for code scanning services, with every rule described once."""
    driver = {"name": "pp-harness lint", "rules": [_rule(rule) for rule in RULES.values()]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [
            *(_result(f, _SARIF[f.severity]) for f in report.findings),
            *(_result(f, "note") for f in report.others),
        ],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.name.replace("-", " ")},
        "fullDescription": {"text": rule.explanation},
        "help": {"text": f"{rule.fix}\n\nV1 runner: {rule.v1}\nV2 runner: {rule.v2}"},
        "defaultConfiguration": {"level": _SARIF[rule.severity]},
    }


def _result(finding: Finding, level: str) -> dict[str, object]:
    path = Path(finding.path)
    # Lines move; what the finding is about, and in which file, does not.
    name = f"{finding.code}:{path.name}:{finding.symbol}:{finding.message}"
    place = {
        "artifactLocation": {
            "uri": path.as_uri() if path.is_absolute() else quote(path.as_posix())
        },
        "region": {"startLine": finding.line, "startColumn": finding.column},
    }
    return {
        "ruleId": finding.code,
        "ruleIndex": list(RULES).index(finding.code),
        "level": level,
        "message": {"text": f"{finding.message}. {finding.fix}"},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"ppLint/v1": hashlib.sha256(name.encode()).hexdigest()},
    }


RENDERERS: dict[str, Callable[[LintReport], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}
