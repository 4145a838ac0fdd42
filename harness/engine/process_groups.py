"""Ending the processes of an engine, their shared memory too. Linux, standard library only.

Python's resource tracker, a helper process of each engine, removes the shared memory that the
others left, once they have ended. So it is the last to be killed, and gets a while before.
"""

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

# How long the kernel may take to clear a killed process, in seconds.
_KILL_SECONDS = 10
# How long a resource tracker may take to end by itself once the others have.
_TRACKER_SECONDS = 6
_POLL_SECONDS = 0.02
_TRACKER = b"multiprocessing.resource_tracker"
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Let this process be killed as soon as the one that started it has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_group(group: int, grace: float = 0) -> None:
    """Kill a process group, after `grace` seconds, and wait until none of it runs.

    Its devices are free then, and its shared memory is gone.
    """
    _await_end(group, grace)
    for pid in members(group):
        if not _is_tracker(pid):
            _kill(pid)
    _await_end(group, _TRACKER_SECONDS)
    for pid in members(group):
        _kill(pid)
    _await_end(group, _KILL_SECONDS)


def members(group: int) -> list[int]:
    """Return the processes of a group that run; a zombie holds nothing and is none of them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # pid (name) state parent group ...; a name may hold anything, a parenthesis too.
            stat = (folder / "stat").read_bytes().rpartition(b") ")[2].split()
        except OSError:
            continue
        if int(stat[2]) == group and stat[0] not in (b"Z", b"X"):
            found.append(int(folder.name))
    return found


def _await_end(group: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and members(group):
        time.sleep(_POLL_SECONDS)


def _is_tracker(pid: int) -> bool:
    try:
        return _TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
