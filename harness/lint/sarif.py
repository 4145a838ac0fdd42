"""Writes a report as SARIF 2.1.0, for code scanning services."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import quote

from harness.lint.catalogue import RULES, Rule
from harness.lint.report import Finding, LintReport, Severity

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def as_sarif(report: LintReport) -> str:
    """One run, with every rule described once."""
    rules = list(RULES.values())
    numbers = {rule.code: number for number, rule in enumerate(rules)}
    run = {
        "tool": {
            "driver": {
                "name": "pp-harness lint",
                "rules": [_rule(rule) for rule in rules],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [
            *(_result(f, numbers[f.code], _LEVELS[f.severity]) for f in report.findings),
            *(_result(f, numbers[f.code], "note") for f in report.others),
        ],
    }
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    return json.dumps(document, indent=2)


def _rule(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.name.replace("-", " ")},
        "fullDescription": {"text": rule.explanation},
        "help": {"text": f"{rule.fix}\n\nV1 runner: {rule.v1}\nV2 runner: {rule.v2}"},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(finding: Finding, number: int, level: str) -> dict[str, object]:
    # Lines move; what the finding is about, and in which file, does not.
    name = f"{finding.code}:{Path(finding.path).name}:{finding.symbol}:{finding.message}"
    path = Path(finding.path)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    return {
        "ruleId": finding.code,
        "ruleIndex": number,
        "level": level,
        "message": {"text": f"{finding.message}. {finding.fix}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": uri},
                    "region": {"startLine": finding.line, "startColumn": finding.column},
                }
            }
        ],
        "partialFingerprints": {"ppLint/v1": hashlib.sha256(name.encode()).hexdigest()},
    }
