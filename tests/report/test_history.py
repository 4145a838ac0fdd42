"""The history file: what a run appends, and what is read back."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_report import small_report

from harness.errors import BadInputError
from harness.plan.points import Point
from harness.report.files import read_report
from harness.report.history import SCHEMA, append, history_lines, read

RESULTS = Path(__file__).resolve().parents[2] / "results"
# A line as the first release of the history wrote it, times included.
OLD = """\
{"schema": "pp-harness-history/1", "kind": "check", "run": "2026-11-20T02:17:00+00:00",
"time": 1795141020.0, "pin": "0.20.2", "series": "s", "setting": {"device": "cpu"},
"variant": "fixed", "model": "ple", "pp": 2, "check": "engine", "verdict": "pass", "outcome": "ok",
"summary": "both engines ran", "figures": {"seconds_ratio": 2.0},
"seconds": {"candidate": 8.0, "baseline": 4.0}}"""


def line(*arguments, **options):
    (line,) = history_lines(small_report(*arguments, **options), 86400.0)
    return line


def test_a_line_per_check_with_digests_and_figures():
    """A verdict leaves a line: place, setting, finite figures, key of the capture, its bits."""
    logits = line(relative_rms=0.5, kl=float("nan"), first=None)
    assert logits.run == "1970-01-02T00:00:00+00:00"
    assert logits.track == ("s, device cpu", Point("fixed", "ple", 2, pin="0.20.2"), "logits")
    assert logits.name == "logits[fixed-ple-pp2-v0.20.2]"
    assert logits.figures == {"relative_rms": 0.5}
    assert (logits.inputs, logits.outputs) == ("key-2", {"logits": "bits"})


def test_outcomes():
    """A fixed finding is red until its entry goes; what does not apply is neither red nor green."""
    assert line().outcome == "ok"
    assert line("fail", codes=[("LOG001", "error")]).codes == ["LOG001"]
    assert line("fail").outcome == line(reason="remove the entry").outcome == "unexpected"
    assert line("fail", expected=True).outcome == line("not-applicable").outcome == "expected"


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("report.json")), ids=lambda p: p.parent.name)
def test_reports_of_any_age_leave_lines(path):
    """`report append` takes every report that is kept in results/."""
    report = read_report(path)
    lines = history_lines(report, 0.0)
    assert [line.verdict for line in lines] == [verdict.verdict for verdict in report.verdicts]


@pytest.fixture
def path(tmp_path):
    """A history of two nights."""
    path = tmp_path / "new" / "history.jsonl"
    for _ in range(2):
        append(path, [line(kl=0.5)])
    return path


def test_what_is_appended_is_read_back(path):
    """Lines come back as they were, in one track; so do those of the first release."""
    with path.open("a") as file:
        file.write(OLD.replace("\n", " "))
    history = read(path)
    assert history.lines[:2] == (line(kl=0.5),) * 2
    assert history.lines[2].figures == {"seconds_ratio": 2.0}
    assert sorted(map(len, history.tracks)) == [1, 2]
    assert history.damaged == ()


def test_an_incomplete_last_line_costs_that_line_alone(path):
    """What a killed writer left is counted and stays, and does not spoil the next line."""
    path.write_bytes(path.read_bytes()[:-30])
    append(path, [line()])
    history = read(path)
    assert (len(history.lines), history.damaged) == (2, (2,))


def test_writers_do_not_mix_their_lines(path):
    """Several jobs append at a time: every line is whole."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: append(path, [line(kl=0.1)] * 20), range(16)))
    history = read(path)
    assert (len(history.lines), history.damaged) == (322, ())


@pytest.mark.parametrize("bad", ["[]", "null", "{}", f'{{"schema": "{SCHEMA}"}}', "\xff"])
def test_a_line_that_is_none_is_left_out_and_counted(path, bad):
    """Whatever stands in a line, the others are read."""
    path.write_bytes(bad.encode("latin-1") + b"\n" + path.read_bytes())
    history = read(path)
    assert (len(history.lines), history.damaged) == (2, (1,))


def test_a_newer_version_is_refused(path):
    """To skip what cannot be understood would lose a night without a word."""
    path.write_text(path.read_text().replace(SCHEMA, "pp-harness-history/2"))
    with pytest.raises(BadInputError, match=r"history.jsonl:1: pp-harness-history/2 is not"):
        read(path)
