"""Python stacks of an engine's processes, on demand: for what hangs or is about to be ended.

Each process writes into a file of its own, `stack.<who>.txt`; its first line gives the process id.
The stacks follow when it gets the signal, even if it waits inside compiled code. Standard library
only: the controller asks too, and so does the process of the engine when a rank has died.
"""

import faulthandler
import os
import signal
import time
from pathlib import Path
from typing import IO

# vLLM and its libraries leave it alone.
SIGNAL = signal.SIGUSR2
_POLL_SECONDS = 0.02

_file: IO[str] | None = None


def arm(folder: Path, who: str) -> None:
    """Let this process write its stacks when it gets the signal, each time anew.

    A rank that was forked calls this again: until then it would write into its parent's file.
    """
    global _file  # noqa: PLW0603 - faulthandler keeps the number of the file, not the file
    _file = (folder / f"stack.{who}.txt").open("a", encoding="utf-8")
    _file.write(f"pid {os.getpid()}\n")
    _file.flush()
    faulthandler.register(SIGNAL, file=_file, all_threads=True)


def armed(folder: Path) -> dict[str, int]:
    """Return the process id of each process that is armed, by its name."""
    found = {}
    for path in folder.glob("stack.*.txt"):
        head, newline, _ = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        number = head.removeprefix("pid ")
        if newline and number.isdecimal():
            found[path.name.removeprefix("stack.").removesuffix(".txt")] = int(number)
    return found


def request(folder: Path, seconds: float, *, resume: bool = False) -> None:
    """Ask every armed process for its stacks, and wait for them at most `seconds`.

    With `resume` a process that was stopped is made to run, or it would never answer. What has
    ended answers nothing.
    """
    asked = {}
    for who, pid in armed(folder).items():
        size = _size(folder, who)
        try:
            os.kill(pid, SIGNAL)
            if resume:
                os.kill(pid, signal.SIGCONT)
        except (ProcessLookupError, PermissionError):
            continue
        asked[who] = size
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(_size(folder, w) == n for w, n in asked.items()):
        time.sleep(_POLL_SECONDS)


def _size(folder: Path, who: str) -> int:
    return (folder / f"stack.{who}.txt").stat().st_size
