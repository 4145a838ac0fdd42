"""Shared memory of vLLM's CPU ranks: named by a port, never removed by vLLM.

A segment that an ended engine left behind stops a later engine that happens to get its port
("create shm in SHMManager failed. errno: 17"), which would read as a fault of the model.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .wrap import wrap

SHM = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is, not a place for files of ours


def install(acts: Callable[[], None]) -> None:
    """Patch vLLM's CPU communicator; `acts` is called where a name is removed."""
    from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed

    wrap(_CPUSHMDistributed, "_init_cpu_shm", partial(init_unnamed, acts))


def init_unnamed(
    acts: Callable[[], None], method: Any, communicator: Any, folder: Path = SHM
) -> Any:
    """Join the rank's segment, and remove its name before, if stale, and after.

    The engine's port is its own while it lives, so what is there under its name is of an engine
    that has ended. After the method all ranks have mapped the segment; it needs no name any more
    and goes with the last process, however that ends.
    """
    segment = folder / f"{communicator.group_name}_{communicator.communicator.rank}"
    segment.unlink(missing_ok=True)
    acts()
    try:
        return method(communicator)
    finally:
        segment.unlink(missing_ok=True)
