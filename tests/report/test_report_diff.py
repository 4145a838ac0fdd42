"""`report diff`: what changed from one report to another, and whether anything got worse."""

import pytest
from click.testing import CliRunner
from small_report import small_report as report

from harness.cli.report import diff
from harness.errors import BadInputError
from harness.report.files import write_reports
from harness.report.report_diff import diff_reports


def changes(old, new):
    return [(str(each.effect), each.message) for each in diff_reports(old, new).changes]


def test_equal_reports():
    """A report compared with itself has changed in nothing."""
    one = report(kl=0.5)
    result = diff_reports(one, one)
    assert (result.compared, result.worse, result.conditions, result.changes) == (1, 0, (), ())


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        (report(), report("fail"), "worse"),
        (report(), report("blocked"), "worse"),
        (report(), report("inconclusive"), "worse"),
        (report(), report("fail", expected=True), "worse"),
        (report("fail", expected=True), report("fail"), "worse"),
        (report("fail"), report("blocked"), "changed"),
        (report("fail", expected=True), report(), "better"),
        (report(), report("not-applicable"), "worse"),
    ],
)
def test_verdicts(old, new, effect):
    """A verdict that is further from a pass is worse, an unexpected one worse than an expected."""
    assert [found for found, _ in changes(old, new)] == [effect]


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ([], [("LOG001", "error")], ("worse", "LOG001 appeared")),
        ([("LOG001", "error")], [], ("better", "LOG001 is gone")),
        ([], [("ACC004", "info")], ("changed", "ACC004 appeared")),
    ],
)
def test_codes(old, new, change):
    """A new error is worse, what only informs is not."""
    assert changes(report("fail", codes=old), report("fail", codes=new)) == [change]


@pytest.mark.parametrize(
    ("name", "old", "new", "effect"),
    [
        ("relative_rms", 1e-3, 2e-3, ["worse"]),
        ("relative_rms", 1e-3, 1.4e-3, ["changed"]),
        ("top1", 0.9, 1.0, ["better"]),
        ("rows", 96, 97, ["changed"]),  # no measure of quality
    ],
)
def test_figures(name, old, new, effect):
    """A figure is judged by the tolerance that a history has for it."""
    found = changes(report(**{name: old}), report(**{name: new}))
    assert [each for each, _ in found] == effect
    assert all(message == f"{name} {old:g} -> {new:g}" for _, message in found)


def test_what_failed_before_is_no_reference():
    """The figures of a check that has never passed are shown and not judged."""
    assert changes(report("fail", kl=0.5), report("fail", kl=5.0)) == [("changed", "kl 0.5 -> 5")]


@pytest.mark.parametrize(
    ("key", "profile", "worse"),
    [("key", "parity", 2), ("other", "parity", 0), ("key", "stress", 0)],
)
def test_bits(key, profile, worse):
    """Other bits from equal inputs are worse, at PP=1 too; other inputs or batches may differ."""
    result = diff_reports(report(profile=profile), report(bits="x", key=key, profile=profile))
    assert result.worse == len(result.changes) == worse


def test_a_check_that_is_gone_is_worse():
    """What nobody judges may fail; a new check is worse only if it fails."""
    old, extra, bad = report(), report(check="engine"), report("fail", check="engine")
    both, broken = (
        old.model_copy(update={"verdicts": [*old.verdicts, *more.verdicts]})
        for more in (extra, bad)
    )
    assert changes(both, old) == [("worse", "pass -> not judged")]
    assert changes(old, both) == [("changed", "not judged -> pass")]
    assert changes(old, broken) == [("worse", "not judged -> fail")]


def test_two_releases_are_compared_by_their_checks():
    """Reports of one pin each are compared point by point, and the pins are named."""
    result = diff_reports(report(), report("fail", pin="0.26.0", key="other"))
    assert (result.compared, result.conditions) == (1, ("pin: 0.20.2 -> 0.26.0",))
    assert result.changes[0].name == "logits[fixed-ple-pp2]"


def test_nothing_in_common_is_bad_input():
    """Reports that share no check say nothing about each other."""
    with pytest.raises(BadInputError, match="no check in common"):
        diff_reports(report(), report(check="engine"))


@pytest.mark.parametrize(("new", "status"), [(report(), 0), (report("fail"), 1), (None, 2)])
def test_the_command(tmp_path, new, status):
    """Folders and files are read; the status says whether anything got worse."""
    write_reports(report(), tmp_path / "old")
    if new is not None:
        write_reports(new, tmp_path / "new")
    arguments = [str(tmp_path / "old"), str(tmp_path / "new" / "report.json")]
    try:
        result = CliRunner().invoke(diff, arguments, catch_exceptions=False)
    except BadInputError:
        assert status == 2
        return
    assert result.exit_code == status
    assert ("worse    logits[fixed-ple-pp2]: pass -> fail" in result.output) == (status == 1)
    assert result.output.splitlines()[-1].startswith("1 checks compared, ")
