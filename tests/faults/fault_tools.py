"""What the tests of faults share: limits, cases, and what engines leave on the host."""

import contextlib
import re
import threading
import time
from pathlib import Path

import psutil
import pytest

# Longest phase in seconds, where none is to be reached.
ENOUGH = 300
MODEL = "ple"


def hang_limit(capture):
    """Return a limit that a hang reaches and a healthy engine like `capture` on this host does not.

    Hosts differ, and others work on them: four times its longest phase.
    """
    ran = [end - start for start, end in capture.manifest.phases.values()]
    return max(20, round(4 * max(ran)))


def short(name, is_short):
    """Return the case of a fault; those that are not short run in `tox -e faults` alone."""
    marks = () if is_short else pytest.mark.faults
    return pytest.param(name, id=name.replace(" ", "-"), marks=marks)


class Belongings:
    """What engines own while they run, those of this process or of `root`: processes, memory.

    Other runs on this host have their own, so what is there is not all ours: it is looked at
    several times a second, and at the end all of it must be gone.
    """

    def __init__(self, root=None):
        self._root = root
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

    def _running(self):
        """Return what runs below the root; of this process, below its fork servers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._root:
                return self._root.children(recursive=True)
            servers = psutil.Process().children()
            return [one for server in servers for one in server.children(recursive=True)]
        return []

    def _look(self):
        while not self._done.wait(0.2):
            for process in self._running():
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
