"""Engines with faults on order: one tree and one fork server for all of them."""

import contextlib
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from planted import VARIANT, planted_series

from harness.capture.children import ForkServers
from harness.capture.launch import launch
from harness.capture.record import Capture
from harness.source.subject import SubjectOptions
from harness.sweep import Point, Sweep, SweepOptions

# Above what a phase of a healthy engine takes on a busy host of two cores.
PHASE_TIMEOUT = 120
MODEL = "ple"


@pytest.fixture(scope="session")
def series(tmp_path_factory):
    """Return the folder of the series that plants faults."""
    return planted_series(tmp_path_factory.mktemp("faults") / "planted")


@pytest.fixture(scope="session")
def sweep(series, tmp_path_factory):
    """Return a sweep over that series, two questions a cell."""
    return Sweep(
        SweepOptions(
            pps=(2, 3),
            subject=SubjectOptions(series=series),
            models=(MODEL,),
            gsm8k_limit=2,
            store=tmp_path_factory.mktemp("store"),
        )
    )


@pytest.fixture(scope="session")
def servers():
    """Fork servers of the session: the tree is imported once."""
    servers = ForkServers()
    yield servers
    servers.close()


@pytest.fixture
def run(sweep, servers, tmp_path):
    """Return a function that runs an engine with a fault and gives its capture.

    `fault` is an order (planted.py); `meanwhile` is called in this thread with the capture's
    folder while the engine runs. On return nothing of the engine may be left.
    """

    def run(fault="", pp=2, *, timeout=PHASE_TIMEOUT, meanwhile=None, starter=servers):
        folder = tmp_path / f"capture{len(list(tmp_path.glob('capture*')))}"
        folder.mkdir()
        (folder / "fault").write_text(fault)
        cell = sweep.cell(Point(VARIANT, MODEL, pp))
        devices = sweep.devices.ids[: sweep.devices.needed(pp, 1)]
        out = SimpleNamespace(manifest=None, error=None)

        def work():
            try:
                out.manifest = launch(cell, folder, devices, starter, phase_timeout=timeout)
            except Exception as error:
                out.error = error

        with Belongings() as belongings:
            thread = threading.Thread(target=work)
            thread.start()
            if meanwhile:
                meanwhile(folder)
            thread.join(timeout=300)
        assert not thread.is_alive(), "the launch outlasts every limit"
        if out.error:
            raise out.error
        assert len(belongings.processes) > pp, "the engine was seen"
        assert belongings.left == []
        return Capture(folder, out.manifest)

    return run


class Belongings:
    """What the engines of this process own while they run: processes and shared memory.

    Other runs on this host have their own, so what is there is not all ours: it is looked at
    several times a second, and at the end all of it must be gone.
    """

    def __init__(self):
        self.processes, self.segments = set(), set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._done.set()
        self._thread.join()

    @property
    def left(self):
        """Return what is still there."""
        shared = [name for name in self.segments if Path("/dev/shm", name).exists()]
        return [*shared, *(pid for pid in self.processes if is_running(pid))]

    def _look(self):
        while not self._done.wait(0.2):
            below = (child.children(recursive=True) for child in psutil.Process().children())
            for process in (one for group in below for one in group):
                self.processes.add(process.pid)
                with contextlib.suppress(OSError):
                    maps = Path(f"/proc/{process.pid}/maps").read_text()
                    self.segments.update(re.findall(r"/dev/shm/([^\s]+)$", maps, re.MULTILINE))


def is_running(pid):
    """Tell whether a process runs; a zombie only waits for its parent to notice."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=120):
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return result
