"""Shared memory of vLLM's CPU ranks: named by a port, never removed by vLLM.

A segment that an ended engine left behind stops a later engine that happens to get its port
("create shm in SHMManager failed. errno: 17"), which would read as a fault of the model.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHM = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is, not a place for files of ours


def install() -> None:
    """Patch vLLM's CPU communicator; does nothing in a build without it."""
    try:
        from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed
    except ImportError:
        return
    _CPUSHMDistributed._init_cpu_shm = unlinking(_CPUSHMDistributed._init_cpu_shm)


def unlinking(method: Callable[..., Any], folder: Path = SHM) -> Callable[..., Any]:
    """Return `method` with its rank's segment removed before, if stale, and after, when joined.

    The engine's port is its own while it lives, so what is there under its name is of an engine
    that has ended. After the method all ranks have mapped the segment; it needs no name any more
    and goes with the last process, however that ends.
    """

    @functools.wraps(method)
    def init_cpu_shm(self: Any) -> Any:
        segment = folder / f"{self.group_name}_{self.communicator.rank}"
        segment.unlink(missing_ok=True)
        try:
            return method(self)
        finally:
            segment.unlink(missing_ok=True)

    return init_cpu_shm
