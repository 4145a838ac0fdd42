"""Lines that say what runs: visible while items wait, and never part of an item's own output."""

import os
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from harness.capture.devices import DevicePool, lease
from harness.plugin.progress import ProgressLines, progress_lines

ONE = ("--pp", "2", "--pp-variant", "fixed", "--pp-model", "ple")


@pytest.mark.parametrize("mode", ["fd", "no"])
def test_lines_show_while_items_wait(suite, monkeypatch, mode):
    """With pytest's capture and without it the lines are printed, in order, each once."""
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    result = suite(*ONE, f"--capture={mode}", how="runpytest_subprocess")
    result.stdout.fnmatch_lines(["pp-harness: fixed-ple-pp2 started on cpu *, about * s"])
    result.stdout.fnmatch_lines(["pp-harness: fixed-ple-pp2 ok after *", "*4 passed*"])
    assert result.outlines.count(next(one for one in result.outlines if "started" in one)) == 1


@pytest.mark.parametrize("reporter", [None, SimpleNamespace(verbosity=-1)])
def test_quiet_is_quiet(reporter):
    """Under -q, and in a worker, which has no terminal, there are no lines."""
    plugins = {"terminalreporter": reporter}
    config = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=plugins.get))
    assert progress_lines(config) is None


def test_a_line_reaches_a_log_at_once():
    """A job's log is no terminal: a line that stays in Python's buffer is of no use for minutes."""
    calls = []
    reporter = SimpleNamespace(write_line=calls.append, flush=lambda: calls.append("flushed"))
    ProgressLines(reporter, None)("cell started")
    assert calls == ["pp-harness: cell started", "flushed"]


def test_a_line_during_an_item_comes_after_it(pytester):
    """What ends while an item compares is no output of the item, and is not lost."""
    pytester.makeconftest(
        "import pytest\n"
        "from harness.plugin.progress import progress_lines\n"
        "def pytest_sessionstart(session):\n"
        "    session.config.lines = progress_lines(session.config)\n"
        "@pytest.fixture\n"
        "def lines(pytestconfig):\n"
        "    return pytestconfig.lines\n"
    )
    pytester.makepyfile(
        "import threading\n"
        "def test_compares(lines):\n"
        "    report = threading.Thread(target=lines, args=('early',))\n"
        "    report.start()\n"
        "    report.join()\n"
        "    print('of the item')\n"
        "    with lines.shown():\n"
        "        lines('late')\n"
        "    print('too')\n"
    )
    shown = pytester.runpytest_subprocess("-rP", "-p", "no:cacheprovider").stdout.str()
    captured = shown.partition("Captured stdout call")[2]
    assert shown.count("pp-harness: early") == 1
    assert shown.count("pp-harness: late") == 1
    assert "of the item\ntoo\n" in captured
    assert "pp-harness" not in captured


def test_a_run_that_waits_says_so(suite):
    """While another run on this machine holds the devices, a run says why nothing happens."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    lines = []
    with ExitStack() as held:
        held.enter_context(lease(DevicePool("cpu", cores), len(cores)))
        plugins = ("-p", "fake_engines", "-p", "no:cacheprovider", "--pp-store", "store")
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *plugins, *ONE],
            cwd=suite.pytester.path,
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in process.stdout:
            lines.append(line.rstrip())
            if "waits for another run on this machine" in line:
                held.close()  # only now: the line is there while the run waits
    assert process.wait(60) == 0, lines
    waits = [line for line in lines if "waits for another run on this machine" in line]
    assert len(waits) == len(set(waits)) > 0
    cell = waits[0].split()[1]
    started = next(n for n, line in enumerate(lines) if f"{cell} started on cpu" in line)
    assert lines.index(waits[0]) < started
    assert "4 passed" in lines[-1]
