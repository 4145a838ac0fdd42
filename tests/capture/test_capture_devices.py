"""Leases: all of a cell's devices or none, one holder each, freed when the holder dies."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from harness.capture import devices as module
from harness.capture.devices import DevicePool, find_devices, lease, visible_gpus
from harness.errors import BadInputError

POOL = DevicePool("cpu", (0, 1, 2, 3))
HOLD = """\
import sys, time
from harness.capture.devices import DevicePool, lease
with lease(DevicePool("cpu", (0, 1, 2, 3)), int(sys.argv[1])) as held:
    print(*held, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder():
    """Return a function that starts a process which holds devices; it is killed at the end."""
    started = []

    def start(count):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(count)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, tuple(map(int, process.stdout.readline().split()))

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def in_background(count, taken, waits=lambda: None):
    def hold():
        with lease(POOL, count, waits=waits) as held:
            taken.append(held)

    thread = threading.Thread(target=hold)
    thread.start()
    return thread


def test_lease_gives_what_was_asked_for():
    """As many different devices of the pool as were asked for."""
    with lease(POOL, 3) as held:
        assert len(set(held)) == 3
        assert set(held) <= set(POOL.ids)


def test_threads_exclude_each_other():
    """A second thread gets other devices, and waits when there are none left."""
    with lease(POOL, 3) as first:
        with lease(POOL, 1) as second:
            assert not set(first) & set(second)
        taken = []
        thread = in_background(2, taken)
        thread.join(0.5)
        assert taken == []
    thread.join(5)
    assert len(taken[0]) == 2


def test_wide_lease_does_not_starve(holder):
    """While one waits for all devices nobody slips in before it, from another process neither."""
    order = []

    def hold(count):
        with lease(POOL, count):
            order.append(count)
            time.sleep(0.05)

    with lease(POOL, 1):
        wide = threading.Thread(target=hold, args=(4,))
        wide.start()
        time.sleep(0.5)
        narrow = [threading.Thread(target=hold, args=(1,)) for _ in range(6)]
        for thread in narrow:
            thread.start()
        time.sleep(0.5)
        assert order == []
    for thread in (wide, *narrow):
        thread.join(20)
    assert order == [4, 1, 1, 1, 1, 1, 1]


def test_only_another_run_is_reported(holder):
    """What this process holds, devices or the guard, is no reason to name another run."""
    reported, taken = [], []
    with lease(POOL, 4):
        threads = [in_background(3, taken, lambda: reported.append("ours")) for _ in range(3)]
        time.sleep(0.7)
        assert taken == reported == []
    for thread in threads:
        thread.join(10)
    assert len(taken) == 3
    process, _ = holder(2)
    thread = in_background(3, taken, lambda: reported.append("theirs"))
    while not reported:
        time.sleep(0.02)
    process.kill()
    thread.join(10)
    assert len(taken) == 4
    assert set(reported) == {"theirs"}


def test_other_devices_are_not_waited_for():
    """Who waits for some devices keeps nobody from others: each set has a guard of its own."""
    with lease(DevicePool("cpu", (0,)), 1):
        waiting = threading.Thread(target=lambda: _take_and_leave(DevicePool("cpu", (0,))))
        waiting.start()
        time.sleep(0.3)
        with lease(DevicePool("cpu", (1, 2)), 2) as others:
            assert others == (1, 2)
    waiting.join(5)
    assert not waiting.is_alive()


def _take_and_leave(pool):
    with lease(pool, 1):
        pass


def test_stop_ends_the_wait():
    """Who waits for devices can be told not to, at the guard and behind it."""
    stop, ended = threading.Event(), []

    def hold():
        with pytest.raises(InterruptedError), lease(POOL, 2, stop):
            pass
        ended.append(True)

    with lease(POOL, 4):
        threads = [threading.Thread(target=hold) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join(5)
    assert ended == [True, True]


def test_devices_come_back_after_an_error():
    """A lease ends with its block, also when the block raises."""
    with pytest.raises(RuntimeError), lease(POOL, 4):
        raise RuntimeError
    with lease(POOL, 4) as held:
        assert held == POOL.ids


def test_processes_exclude_each_other(holder):
    """Two processes never hold the same device."""
    _, theirs = holder(3)
    with lease(POOL, 1) as ours:
        assert set(ours) | set(theirs) == set(POOL.ids)


def test_killed_holder_frees_its_devices(holder):
    """The kernel gives back what a killed process held; nobody has to clean up."""
    process, _ = holder(4)
    taken = []
    thread = in_background(4, taken)
    thread.join(0.5)
    assert taken == []
    os.kill(process.pid, signal.SIGKILL)
    thread.join(10)
    assert taken == [POOL.ids]


def test_more_than_the_pool_is_refused():
    """What can never be had is an error at once and not an endless wait."""
    with (
        pytest.raises(BadInputError, match="5 cpu devices are needed, 4 can be used"),
        lease(POOL, 5),
    ):
        pass


@pytest.mark.parametrize(
    ("kind", "tp", "memory", "count"),
    [
        *[("cpu", 1, gib, cores) for gib, cores in ((0.0, 1), (3.0, 1), (4.0, 1), (4.1, 2))],
        *[("cpu", 2, gib, cores) for gib, cores in ((0.0, 2), (9.0, 3))],
        ("cuda", 2, 9.0, 8),
    ],
)
def test_needed_devices(kind, tp, memory, count):
    """A CPU cell takes a core for each rank of a stage, or those that its memory comes with.

    A GPU cell takes one GPU for each rank.
    """
    assert DevicePool(kind, (), memory=4.0).needed(4, tp, memory) == count


def test_a_core_without_known_memory_is_enough():
    """Where nobody said how much memory a core has, memory is not counted."""
    assert DevicePool("cpu", (0,)).needed(4, 1, 2**40) == 1


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_memory_of_a_container(tmp_path, name):
    """The limit of a control group is shared by the cores that this process may use."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"{8 * 2**20}\n")
    assert module._memory_per_core(4, tmp_path) == 2 * 2**20


@pytest.mark.parametrize("content", [None, "max\n", f"{2**60}\n"])
def test_memory_of_a_host(tmp_path, content):
    """Without a limit the memory of the host is shared by all of its cores."""
    if content is not None:
        (tmp_path / "memory.max").write_text(content)
    total, cores = psutil.virtual_memory().total, os.cpu_count()
    assert module._memory_per_core(1, tmp_path) == total / cores


def test_cores_are_those_of_this_process():
    """The CPU pool is what this process may run on, not what the machine has."""
    assert find_devices("cpu").ids == tuple(sorted(os.sched_getaffinity(0)))


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Return a function that puts a program in the place of nvidia-smi."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def stand_in(script):
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "nvidia-smi").chmod(0o755)

    return stand_in


def test_gpus_are_listed(nvidia_smi, monkeypatch):
    """All GPUs of the host are in the pool."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvidia_smi("printf '0, GPU-aa\\n1, GPU-bb\\n2, GPU-cc\\n'")
    assert find_devices("cuda") == DevicePool("cuda", (0, 1, 2))


def test_a_shared_gpu_stands_for_several(nvidia_smi, monkeypatch):
    """With two ranks per GPU each is two devices, and a user's choice of GPUs still holds."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    nvidia_smi("printf '0, GPU-aa\\n1, GPU-bb\\n2, GPU-cc\\n'")
    assert find_devices("cuda", 2) == DevicePool("cuda", (0, 1, 4, 5), ranks_per_device=2)


def test_gpus_hidden_by_the_user_stay_hidden(nvidia_smi, monkeypatch):
    """`CUDA_VISIBLE_DEVICES` of the user limits the pool."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 0")
    nvidia_smi("printf '0, GPU-aa\\n1, GPU-bb\\n2, GPU-cc\\n'")
    assert find_devices("cuda").ids == (0, 2)


def test_gpus_may_be_named_by_uuid():
    """`CUDA_VISIBLE_DEVICES` may name GPUs by UUID; one that is not there is refused by name."""
    listed = ["0, GPU-aa", "1, GPU-bb", "2, GPU-cc"]
    assert visible_gpus(listed, "GPU-cc,1") == (1, 2)
    assert visible_gpus(listed, "") == ()
    with pytest.raises(BadInputError, match="MIG-7"):
        visible_gpus(listed, "0,MIG-7")


def test_no_gpu_is_refused(nvidia_smi):
    """A host whose nvidia-smi fails has one clear error with the cure."""
    nvidia_smi("exit 9")
    with pytest.raises(BadInputError, match=r"no GPU can be seen.*--pp-device cpu"):
        find_devices("cuda")


# nvidia-smi reports the next line of a file each time it is asked; the last one stays.
READINGS = """\
file=%s
head -n 1 $file
[ $(wc -l < $file) -gt 1 ] && sed -i 1d $file
exit 0"""


@pytest.mark.parametrize(
    ("readings", "left"),
    [
        ([300], [300]),  # nothing there: no wait
        ([9000, 4000, 500, 400], [400]),  # falls until it is free; nobody asks again
        ([9000, 6000, 5990, 1], [1]),  # what another program holds is not waited for
    ],
)
def test_gpu_memory_settles_before_a_grant(nvidia_smi, tmp_path, readings, left):
    """A GPU is granted when the memory that an ended cell held is back, or falls no more."""
    file = tmp_path / "readings"
    file.write_text("".join(f"{one}\n" for one in readings))
    nvidia_smi(READINGS % file)
    with lease(DevicePool("cuda", (3,)), 1) as held:
        assert held == (3,)
        assert file.read_text().split() == [str(one) for one in left]


def test_kinds_do_not_meet(nvidia_smi):
    """Core 0 and GPU 0 are two devices."""
    nvidia_smi("echo 0")
    with lease(DevicePool("cuda", (0,)), 1), lease(DevicePool("cpu", (0,)), 1) as cores:
        assert cores == (0,)
