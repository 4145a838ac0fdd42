"""A file of findings that a repository begins with: they do not count until they are gone."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from harness.errors import BadInputError
from harness.lint.report import Finding, LintReport

_FIELDS = ("code", "path", "symbol", "message")
_NEVER = "PP901"
Key: TypeAlias = "tuple[str, ...]"


def write_baseline(file: Path, findings: Iterable[Finding]) -> int:
    """Write what is known from now on, and return how many findings that are.

    A file that cannot be read or parsed (PP901) is never known.
    """
    keys = Counter(_key(file, f) for f in findings if f.code != _NEVER)
    records = [{**dict(zip(_FIELDS, key, strict=True)), "count": n} for key, n in keys.items()]
    records.sort(key=lambda record: [str(record[name]) for name in ("path", "code", "message")])
    file.write_text(json.dumps({"version": 1, "findings": records}, indent=2) + "\n", "utf-8")
    return sum(keys.values())


def read_baseline(file: Path) -> Counter[Key]:
    """Return how often each finding is known.

    Raises:
        BadInputError: The file cannot be read, or `write_baseline` did not write it.
    """
    try:
        document = json.loads(file.read_text("utf-8"))
        return Counter(
            {
                tuple(str(record[name]) for name in _FIELDS): int(record["count"])
                for record in document["findings"]
            }
        )
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{file}: no baseline; write one with --write-baseline") from error


def compared(report: LintReport, file: Path) -> LintReport:
    """Return the report with the findings that the baseline knows among those that do not count.

    Lines move, so a finding is known by code, file, class or key, and message.

    Raises:
        BadInputError: As `read_baseline` does.
    """
    left = read_baseline(file)
    new: list[Finding] = []
    old: list[Finding] = []
    for each in report.findings:
        key = _key(file, each)
        (old if left[key] > 0 and each.code != _NEVER else new).append(each)
        left[key] -= 1
    return replace(report, findings=tuple(new), others=(*old, *report.others))


def _key(file: Path, each: Finding) -> Key:
    path = Path(os.path.relpath(each.path, file.parent)).as_posix()
    return (each.code, path, each.symbol, each.message)
