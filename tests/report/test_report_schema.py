"""Reports of any age are read; a new one is written in the words of today."""

import json
from pathlib import Path

import pytest
from hostile import hostile_report
from pydantic import TypeAdapter

from harness.checks.attribution import Attribution
from harness.checks.expectations import Judgement, JudgementKind
from harness.checks.finding import Finding, Outcome, Verdict
from harness.plan.points import Point
from harness.report.files import REPORT, read_report
from harness.report.html import render_page
from harness.report.markdown import render_markdown
from harness.report.records import item_record
from harness.report.schema import FindingRecord, VerdictRecord

RESULTS = Path(__file__).resolve().parents[2] / "results"
RECORDS = sorted(path.parent for path in RESULTS.rglob(REPORT))
WHERE = {"variant": "v", "model": "m", "pp": 2, "check": "contract"}
FINDING = {**WHERE, "code": "CON001", "severity": "error", "message": "m"}


def test_a_finding_of_an_older_report_is_read():
    """`rank` and `cure` are read as `stage` and `fix`, and written under these names."""
    finding = FindingRecord.model_validate({**FINDING, "rank": 1, "cure": "read the key"})
    assert (finding.stage, finding.fix) == (1, "read the key")
    written = json.loads(finding.model_dump_json())
    assert (written["stage"], written["fix"]) == (1, "read the key")
    assert not {"rank", "cure"} & written.keys()
    assert FindingRecord.model_validate(written) == finding


@pytest.mark.parametrize("missing", [{"stage": 1}, {"rank": 1}])
def test_a_finding_without_a_fix_is_no_finding(missing):
    """A field that was renamed is still asked for."""
    with pytest.raises(ValueError, match="fix"):
        FindingRecord.model_validate({**FINDING, **missing})


@pytest.mark.parametrize(("old", "new"), [("cured", "fixed"), ("mended", "fixed"), ("hidden",) * 2])
def test_an_effect_of_an_older_report_is_read(old, new):
    """Effects have new names too."""
    attribution = {"patches": ["p"], "before": "a", "after": "b", "model": "m", "pp": 2}
    attribution |= {"check": "logits", "codes": [], "message": "m", "effect": old}
    assert TypeAdapter(Attribution).validate_python(attribution).effect == new


def test_a_check_of_another_version_is_read():
    """A report may hold any check."""
    verdict = {**WHERE, "check": "speed", "verdict": "pass", "expected": False, "summary": "fast"}
    assert VerdictRecord.model_validate(verdict).check == "speed"


def test_a_record_of_an_item_keeps_all_of_a_verdict():
    """Nothing of a finding or a point is lost on the way into the report."""
    finding = Finding("CON001", "m", "f", stage=1, boundary="0->1", key="k", layer=3, place="p:1")
    point = Point("v", "m", 2, "stress", tp=2, pin="0.26.0")
    verdict = Verdict(Outcome.FAIL, "m", (finding,), {"steps": 2})
    judgement = Judgement(JudgementKind.EXPECTED, "known")
    item = item_record("contract", point, "0.26.0", verdict, judgement, [])
    (record,) = item.findings
    assert Point.of(record) == Point.of(item.verdict) == point
    assert {name: getattr(record, name) for name in vars(finding)} == vars(finding)
    assert item.verdict.known
    assert (item.verdict.point, item.verdict.reason) == (point.id, "known")
    assert record.where == "stage 1, boundary 0->1, layer 3, k"


@pytest.mark.parametrize(
    ("verdict", "expected", "reason", "good"),
    [
        ("pass", False, "", True),
        ("pass", False, "unexpected pass: remove the entry", False),
        ("fail", False, "", False),
        ("fail", True, "known", True),
        ("blocked", False, "", False),
        ("inconclusive", False, "", False),
        ("not-applicable", False, "no tokenizer", True),
    ],
)
def test_good_is_what_a_run_may_end_green_with(verdict, expected, reason, good):
    """A pass, a known finding, and a check that does not apply; an unexpected pass is not."""
    record = VerdictRecord(**WHERE, verdict=verdict, expected=expected, summary="s", reason=reason)
    assert record.good is good


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: str(folder.relative_to(RESULTS)))
def test_every_record_is_shown(folder):
    """Page and Markdown of each record of the repository name each finding and each point."""
    report = read_report(folder)
    page, markdown = render_page(report), render_markdown(report)
    assert page.count('<details class="point filterable"') == len(
        {Point.of(verdict) for verdict in report.verdicts}
    )
    assert page.count('class="filterable error"') == sum(
        f.severity == "error" for f in report.findings
    )
    assert markdown.startswith("## ")


def test_a_report_survives_being_written():
    """What is written is read back the same."""
    report = hostile_report()
    written = report.model_dump_json(by_alias=True)
    assert type(report).model_validate_json(written) == report
