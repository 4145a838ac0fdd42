"""docs/report.md is in step with the schema and with the codes that the harness gives."""

import dataclasses
import re
from enum import StrEnum
from pathlib import Path

import pytest

from harness.checks.attribution import Attribution
from harness.checks.registry import check_names
from harness.report.schema import (
    SCHEMA,
    CellRecord,
    FindingRecord,
    Report,
    VerdictRecord,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
# The packages whose findings reach a report; the static lint has a list of its own.
SOURCES = ("checks", "report", "plugin")


def table(title):
    """Return the rows of the table below a heading: first cell without its backquotes, and rest."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE))


@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("The document", Report),
        ("A cell", CellRecord),
        ("A verdict", VerdictRecord),
        ("A finding", FindingRecord),
        ("An attribution", Attribution),
    ],
)
def test_every_field_is_described_in_order(title, model):
    """Field by field, no more and no less; a field with fixed values names each of them."""
    if dataclasses.is_dataclass(model):
        fields = {field.name: field.type for field in dataclasses.fields(model)}
    else:
        fields = {f.alias or name: f.annotation for name, f in model.model_fields.items()}
    rows = table(title)
    assert list(rows) == list(fields)
    for name, annotation in fields.items():
        if isinstance(annotation, type) and issubclass(annotation, StrEnum):
            missing = [value for value in annotation if f"`{value}`" not in rows[name]]
            assert not missing, f"{name}: {missing}"
    if "check" in fields and model is VerdictRecord:
        assert all(f"`{name}`" in rows["check"] for name in check_names())


def test_the_page_names_the_schema():
    """A new version of the schema needs a new page."""
    assert f"`{SCHEMA}`" in table("The document")["schema"]


def test_every_code_is_described():
    """A code that a report can hold is on the page, and the page has no other."""
    given = set()
    for name in SOURCES:
        path = ROOT / "harness" / name
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            given |= set(re.findall(r'"([A-Z]{3}\d{3})"', file.read_text(encoding="utf-8")))
    assert given == set(table("Codes"))
