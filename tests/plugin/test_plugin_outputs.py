"""What a run leaves for other readers: page, Markdown, a job's summary, JUnit, reportlog."""

import json
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.report.files import read_report

RUN = ("--pp", "2", "--pp-variant", "merged", "--pp-model", "ple", "--pp-ignore-expected")
POINT = "merged-ple-pp2"


def test_the_report_folder_holds_all_three(suite):
    """report.json for machines, report.md and report.html for people, of one and the same run."""
    suite(*RUN, "--pp-report", "out")
    out = suite.pytester.path / "out"
    assert sorted(one.name for one in out.iterdir()) == ["report.html", "report.json", "report.md"]
    for name in ("report.html", "report.md"):
        written = (out / name).read_text(encoding="utf-8")
        assert "CON001" in written
        assert "test_contract[merged-ple-pp2]" in written
    (verdict, *_) = json.loads((out / "report.json").read_text(encoding="utf-8"))["verdicts"]
    assert verdict["point"] == POINT


def test_a_job_gets_its_summary(suite, monkeypatch):
    """In a job of GitHub Actions the Markdown is appended to its summary, in others nowhere."""
    summary = suite.pytester.path / "summary.md"
    summary.write_text("before\n")
    suite(*RUN)
    assert summary.read_text() == "before\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    suite(*RUN)
    written = summary.read_text(encoding="utf-8")
    assert written.startswith("before\n## ❌ FAIL")
    assert "✗ fail" in written


def test_junit_has_the_figures(suite):
    """Each test case carries point, verdict and figures as properties, and no record of ours."""
    suite(*RUN, "--junitxml", "junit.xml")
    cases = ElementTree.parse(suite.pytester.path / "junit.xml").iter("testcase")
    found = {
        case.get("name").partition("[")[0]: {
            one.get("name"): one.get("value") for one in case.iter("property")
        }
        for case in cases
    }
    assert found["test_logits"]["pp.point"] == POINT
    assert found["test_logits"]["pp.verdict"] == "fail"
    assert float(found["test_logits"]["pp.max_abs"]) == 1.0
    assert found["test_accuracy"]["pp.lost"] == "8"
    assert not [name for properties in found.values() for name in properties if name[:3] != "pp."]


def test_reportlog_works_beside_it(suite):
    """pytest-reportlog writes every item with its figures, and the report is the same."""
    pytest.importorskip("pytest_reportlog")
    suite(*RUN, "--report-log", "log.jsonl", "--pp-report", "out")
    log = (suite.pytester.path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    calls = [one for one in map(json.loads, log) if one.get("when") == "call"]
    assert len(calls) == 4
    assert all(dict(one["user_properties"])["pp.point"] == POINT for one in calls)
    written = json.loads((suite.pytester.path / "out" / "report.json").read_text(encoding="utf-8"))
    assert len(written["verdicts"]) == 4


def test_the_end_is_short_and_a_failure_is_a_sentence(suite):
    """Matrix, a line per finding, a count; a failing item shows evidence and fix, no traceback."""
    result = suite(*RUN)
    result.stdout.fnmatch_lines(
        [
            "'per_layer_inputs' is sent over 0->1 but stage 1 never reads it",
            "  CON001: stage 1, boundary 0->1, per_layer_inputs*",
            "  evidence: steps 2, sent 2, read 0",
            "  fix: read the key from intermediate_tensors*",
            "variant  model  pp  engine  contract  logits  accuracy",
            "merged-ple-pp2: CON001 'per_layer_inputs' is sent over 0->1*",
            "merged-ple-pp2: LOG001 *",
            "merged-ple-pp2: ACC001 *",
            "3 of 4 checks fail.",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_time_limit_judges_what_is_there(suite, monkeypatch):
    """What has no capture is blocked, the rest is judged and reported; another run goes on."""
    run = ("--pp", "2", "--pp-variant", "merged,fixed", "--pp-model", "ple", "--pp-report", "out")

    def verdicts(*options):
        suite(*run, *options)
        report = json.loads((suite.pytester.path / "out" / "report.json").read_text())
        fresh = {cell["id"] for cell in report["cells"] if cell["fresh"]}
        return {(v["point"], v["check"]): v["verdict"] for v in report["verdicts"]}, fresh

    monkeypatch.setenv("FAKE_HANG", "fixed")
    found, _ = verdicts("--pp-time-limit", "4")
    assert {found["fixed-ple-pp2", check] for check in ("engine", "logits")} == {"blocked"}
    assert found["merged-ple-pp2", "logits"] == "fail"
    monkeypatch.delenv("FAKE_HANG")
    found, fresh = verdicts()
    assert found["fixed-ple-pp2", "logits"] == "pass"
    assert fresh == {"fixed-ple-pp1", "fixed-ple-pp2"}


def test_merged_shards_tell_what_the_whole_sweep_tells(suite):
    """Shards on machines of their own, merged with their stores, are the report of the whole."""
    run = ("--pp", "2", "--pp-model", "ple,dense", "--pp-report")
    suite(*run, "whole")
    folder = suite.pytester.path
    options = ["--out", str(folder / "merged"), "--into", str(folder / "all")]
    parts = []
    for number in (1, 2, 3):
        suite(*run, f"part{number}", "--pp-shard", f"{number}/3", "--pp-store", f"store{number}")
        parts.append(str(folder / f"part{number}"))
        options += ["--store", str(folder / f"store{number}")]
    result = CliRunner().invoke(cli, ["report", "merge", *parts, *options])
    assert result.exit_code == 0, result.output
    whole, merged = read_report(folder / "whole"), read_report(folder / "merged")
    assert whole.attribution
    assert merged.attribution == whole.attribution
    assert merged.verdicts == whole.verdicts
    assert merged.findings == whole.findings
    assert merged.not_applicable == whole.not_applicable
    assert merged.environment == whole.environment
    assert [cell.id for cell in merged.cells] == [cell.id for cell in whole.cells]
