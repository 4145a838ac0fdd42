"""One more check: a registration and a test function, and it stands wherever checks stand."""

import pytest
from click.testing import CliRunner

from harness.checks import registry
from harness.checks.expectations import Setting, load_expectations
from harness.checks.finding import Finding, Outcome, judged
from harness.checks.registry import Check, Figure, Need
from harness.cli.main import cli
from harness.errors import BadInputError
from harness.plan.points import Point
from harness.report.files import read_report
from harness.report.join import join_reports

TEST = """
def test_latency(pp_point, pp_judge):
    pp_judge("latency", pp_point)
"""
RUN = ("--pp", "2,4", "--pp-variant", "fixed", "--pp-model", "ple")
WITH_LATENCY = ["engine", "contract", "logits", "latency", "accuracy"]


def compare_latency(pair):
    """Judge seconds: PP=4 is always too slow."""
    slowdown = 2.5 if pair.candidate.cell.pp == 4 else 1.25
    slow = [Finding("LAT001", f"PP=4 takes {slowdown} times as long", "find out why")]
    return judged(slow if slowdown > 2 else [], "fast enough", slowdown=slowdown)


@pytest.fixture
def latency(monkeypatch):
    """Register the check for the length of a test."""
    registry.check_names()  # those that ship are registered first
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    figures = (Figure("slowdown", "seconds over those at PP=1", "ratio"),)
    needs = Need.CANDIDATE | Need.BASELINE
    registry.register(Check("latency", 35, needs, compare_latency, figures, trend="slowdown"))


@pytest.fixture
def run(suite, latency):
    """Return a function that runs the suite with the new check's test beside the others."""
    (suite.pytester.path / "test_latency.py").write_text(TEST)
    return lambda *options: suite(*RUN, *options)


def test_it_stands_in_the_table_and_fails_like_any_other(run):
    """A column at its place, an outcome for each point, its finding and fix at the end."""
    result = run()
    result.assert_outcomes(passed=9, failed=1)
    result.stdout.fnmatch_lines(
        [
            "  LAT001",
            "  fix: find out why",
            "variant  model  pp  engine  contract  logits  latency  accuracy",
            "fixed    ple    2   pass    pass      pass    pass     pass",
            "fixed    ple    4   pass    pass      pass    fail     pass",
            "fixed-ple-pp4: LAT001 PP=4 takes 2.5 times as long",
        ]
    )


def test_it_stands_in_every_form_of_the_report(run, suite):
    """Schema, page with label and unit, Markdown, and the order of checks after a merge."""
    run("--pp-report", "report")
    folder = suite.pytester.path / "report"
    report = read_report(folder)
    slowdowns = {v.pp: v.figures["slowdown"] for v in report.verdicts if v.check == "latency"}
    assert slowdowns == {2: 1.25, 4: 2.5}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<th scope="row">seconds over those at PP=1 (ratio)</th><td>2.5</td>' in page
    assert 'id="point-fixed-ple-pp4-latency"' in page
    assert 'id="finding-LAT001-fixed-ple-pp4"' in page
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert f"| point | {' | '.join(WITH_LATENCY)} |" in markdown
    joined = join_reports({"a": report})
    assert [v.check for v in joined.verdicts if v.pp == 2] == WITH_LATENCY


def test_it_has_a_trend(run, suite):
    """The figure that stands for it is followed night after night."""
    for _ in range(2):
        run("--pp-history", "history.jsonl")
    result = CliRunner().invoke(
        cli, ["report", "trend", str(suite.pytester.path / "history.jsonl")]
    )
    (row,) = [
        line for line in result.output.splitlines() if line.startswith("latency[fixed-ple-pp2")
    ]
    assert row.split()[1:7] == ["pass", "2", "slowdown", "1.25", "1.25", "1.25"]


def test_its_findings_can_be_expected(tmp_path, latency, monkeypatch):
    """An entry of expected.toml may name it, and covers its finding; unregistered it is refused."""
    path, setting = tmp_path / "expected.toml", Setting("0.20.2", "gemma4-pp", "cpu", "bundled")
    path.write_text(
        '[[expected]]\nvariants = ["fixed"]\nchecks = ["latency"]\ncodes = ["LAT001"]\n'
        'reason = "slow"\nlink = "issue 1"\n'
    )
    point = Point("fixed", "ple", 4)
    slow = judged([Finding("LAT001", "slow", "find out why")], "")
    engine = judged([], "ran")
    assert slow.outcome is Outcome.FAIL
    judgement = load_expectations(path, setting).judge("latency", point, slow, engine)
    assert (judgement.kind, judgement.reason) == ("expected", "slow (issue 1)")
    monkeypatch.delitem(registry._registered, "latency")
    with pytest.raises(BadInputError, match="'latency' is no check; there are engine, contract"):
        load_expectations(path, setting)


def test_a_report_with_a_check_that_is_gone_is_still_read(run, suite, monkeypatch):
    """Another version's report keeps its check: its column comes last, its page has the verdict."""
    run("--pp-report", "report")
    folder = suite.pytester.path / "report"
    monkeypatch.delitem(registry._registered, "latency")
    result = CliRunner().invoke(cli, ["report", "merge", str(folder), "--out", str(folder)])
    assert "engine  contract  logits  accuracy  latency" in result.output
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<th scope="row">slowdown</th><td>2.5</td>' in page
