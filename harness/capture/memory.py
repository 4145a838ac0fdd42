"""The kernel's count of processes that it killed for want of memory, and what ranks held before."""

import signal
from pathlib import Path

import psutil

from ..engine.hooks import stacks
from ..plan.cell import Cell
from ..plan.cost import rank_bytes

# Of this container, by cgroup version 2 or 1, and of the host: `oom_kill NUMBER` in each.
_COUNTERS = (
    "sys/fs/cgroup/memory.events",
    "sys/fs/cgroup/memory/memory.oom_control",
    "proc/vmstat",
)
_NAME = "oom_kill"
_GIB = 2**30


def oom_kills(root: Path = Path("/")) -> int:
    """Count the processes that the kernel has killed for memory, over all counters there are."""
    total = 0
    for counter in _COUNTERS:
        try:
            lines = (root / counter).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.split()[0] == _NAME)
    return total


class MemoryWatch:
    """The most memory seen of each process of an engine, and whether the kernel killed one of them.

    A process that is killed leaves no word of its own: who died by SIGKILL that we did not send
    while the kernel's count rose was killed for memory.
    """

    def __init__(self, cell: Cell, folder: Path) -> None:
        self._cell, self._folder = cell, folder
        self._kills = oom_kills()
        self._held: dict[str, int] = {}

    def look(self) -> None:
        """Note what each process holds now: resident bytes."""
        for who, pid in stacks.armed(self._folder).items():
            try:
                held = int(psutil.Process(pid).memory_info().rss)
            except psutil.Error:
                continue
            self._held[who] = max(self._held.get(who, 0), held)

    def killed(self, who: str, status: int | None) -> str | None:
        """Tell in words that the kernel killed `who`, which ended with `status`; None if not."""
        if status != -signal.SIGKILL or oom_kills() <= self._kills:
            return None
        held, total = self._held.get(who, 0) / _GIB, psutil.virtual_memory().total / _GIB
        return (
            f"was killed by the kernel for want of memory ({_NAME}): it held {held:.1f} GiB when "
            f"last seen, {rank_bytes(self._cell) / _GIB:.1f} GiB were expected of a rank, the "
            f"machine has {total:.0f} GiB"
        )
