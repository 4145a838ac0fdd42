"""What is shown while cells run: a table on a terminal, a line at start and end elsewhere."""

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from _pytest._io import TerminalWriter

from harness.capture.devices import DevicePool, lease
from harness.plan.cell import Cell, Gsm8kSource
from harness.plugin.live import LiveView, PlainLines, watch_for


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


def reporter(file, verbosity=0):
    writer = TerminalWriter(file)
    lines = SimpleNamespace(_tw=writer, verbosity=verbosity)
    lines.write_line = writer.line
    return lines


@pytest.fixture
def cell(tmp_path):
    gsm8k = Gsm8kSource("bundled", tmp_path, "digest", None, 0)
    return Cell("fixed", "ple", 2, tmp_path, "tree", "path", "model", gsm8k, "pin")


@pytest.fixture
def folder(tmp_path):
    """A cell's folder in its second phase."""
    phases = [{"phase": name, "time": time.time()} for name in ("engine", "probes")]
    (tmp_path / "phases.jsonl").write_text("".join(json.dumps(one) + "\n" for one in phases))
    return tmp_path


@pytest.fixture
def no_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_lines_say_start_and_end(cell, folder):
    """A log has one line when a cell starts and one when it ends."""
    file = io.StringIO()
    lines = PlainLines(reporter(file))
    lines.started(cell, folder, (0, 1), 14.6)
    lines.ended(cell, "ok", 15.23)
    assert file.getvalue().splitlines() == [
        "pp-harness: fixed-ple-pp2 started on cpu 0 1, about 15 s",
        "pp-harness: fixed-ple-pp2 ok after 15.2 s",
    ]


def test_which_view(no_ci, monkeypatch):
    """A terminal gets the table; a file, a CI and a dumb terminal lines; -q nothing."""
    assert isinstance(watch_for(reporter(Terminal())), LiveView)
    assert isinstance(watch_for(reporter(io.StringIO())), PlainLines)
    assert watch_for(reporter(Terminal(), verbosity=-1)) is None
    assert watch_for(None) is None
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(watch_for(reporter(Terminal())), PlainLines)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "true")
    assert isinstance(watch_for(reporter(Terminal())), PlainLines)


def test_table_shows_what_runs(no_ci, cell, folder):
    """Cell, phase, devices and the expected seconds stand in the table while it runs."""
    file = Terminal()
    view = watch_for(reporter(file))
    view.started(cell, folder, (3, 4), 15.0)
    view.started(replace(cell, pp=1), folder, (5,), None)
    view._live.refresh()
    view.ended(cell, "ok", 1.0)
    view.close()
    shown = file.getvalue()
    for word in ("fixed-ple-pp2", "fixed-ple-pp1", "probes", "3 4", "15 s", "?"):
        assert word in shown


def test_pytest_s_output_is_kept(no_ci, cell, folder):
    """What pytest writes meanwhile is all there, in order, and the terminal is its own again."""
    file = Terminal()
    one = reporter(file)
    view = watch_for(one)
    view.started(cell, folder, (0,), None)
    assert one._tw._file is view
    one._tw.write("a whole line\n")
    for dot in "..x":
        one._tw.write(dot, flush=True)
    view.ended(cell, "ok", 1.0)
    assert one._tw._file is file
    one._tw.write("F\n")
    shown = file.getvalue()
    assert "a whole line" in shown
    assert shown.endswith("..xF\n")
    assert shown.index("a whole line") < shown.rindex("..xF")


def test_a_folder_without_phases_is_starting(no_ci, cell, tmp_path):
    """Before the child says anything the cell is starting; so it is once its folder is moved."""
    view = watch_for(reporter(Terminal()))
    view.started(cell, tmp_path / "gone", (0,), None)
    assert "start" in _text(view)
    view.close()


def test_a_cell_that_waits_is_shown(no_ci, cell, folder):
    """A cell whose devices another run holds has a row that says so, and goes on in it."""
    view = watch_for(reporter(Terminal()))
    view.waits(cell, 15.0)
    assert "waits for another run" in _text(view)
    view.started(cell, folder, (0,), 15.0)
    assert "waits" not in _text(view)
    assert _text(view).count("fixed-ple-pp2") == 1
    view.close()


ONE = ("--pp", "2", "--pp-variant", "fixed", "--pp-model", "ple")


def test_lines_reach_a_pipe_while_items_wait(suite, monkeypatch):
    """pytest's capture, which is on while an item waits for its engines, swallows no line."""
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    result = suite(*ONE, how="runpytest_subprocess")
    result.stdout.fnmatch_lines(
        [
            "pp-harness: fixed-ple-pp2 started on cpu *",
            "pp-harness: fixed-ple-pp2 ok after *",
            "*4 passed*",
        ]
    )


def test_a_real_terminal_shows_the_table(suite, monkeypatch, no_ci):
    """In a terminal the table stands while items wait, and is gone at the end."""
    monkeypatch.setenv("FAKE_SECONDS", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = in_terminal(suite.pytester.path)
    assert re.search(r"fixed-ple-pp[12] +probes +\d", shown)
    assert "started on" not in shown
    passed = shown.index("4 passed")
    assert "elapsed" in shown[:passed]
    assert "elapsed" not in shown[passed:]
    assert len(re.findall(r"fixed +ple +2 +pass +pass +pass +pass", shown)) == 1


def test_a_run_that_waits_says_so(suite):
    """While another run on this machine holds the devices, a run says why nothing happens."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    lines = []
    with ExitStack() as held:
        held.enter_context(lease(DevicePool("cpu", cores), len(cores)))
        process = start(suite.pytester.path, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            lines.append(line.rstrip())
            if "waits for another run on this machine" in line:
                held.close()
    assert process.wait(60) == 0, lines
    waits = [line for line in lines if "waits for another run on this machine" in line]
    assert len(waits) == len(set(waits)) > 0
    (cell,) = {line.split()[1] for line in waits[:1]}
    started = next(n for n, line in enumerate(lines) if f"{cell} started on cpu" in line)
    assert lines.index(waits[0]) < started
    assert "4 passed" in lines[-1]


def start(folder, **streams):
    """Start a run of the suite in `folder`."""
    plugins = ("-p", "fake_engines", "-p", "no:cacheprovider", "--pp-store", "store")
    command = [sys.executable, "-m", "pytest", *plugins, *ONE]
    return subprocess.Popen(command, cwd=folder, **streams)


def in_terminal(folder):
    """Return what a run of the suite in `folder` puts out on a terminal of its own."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = start(folder, stdin=its, stdout=its, stderr=its)
    os.close(its)
    shown = b""
    with suppress(OSError):  # the terminal ends with its last process
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait(60) == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def _text(view):
    from rich.console import Console

    with (console := Console(file=io.StringIO(), width=100)).capture() as captured:
        console.print(view._render())
    return captured.get()
