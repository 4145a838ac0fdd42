"""Leases: all of a cell's devices or none, one holder each, freed when the holder dies."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from harness.capture.devices import DevicePool, find_devices, lease, visible_gpus
from harness.errors import BadInputError

POOL = DevicePool("cuda", (0, 1, 2, 3))
HOLD = """\
import sys, time
from harness.capture.devices import DevicePool, lease
with lease(DevicePool("cuda", (0, 1, 2, 3)), int(sys.argv[1])) as held:
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


def in_background(count, taken):
    def hold():
        with lease(POOL, count) as held:
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


def test_waiting_lease_holds_nothing():
    """A lease that cannot be had whole takes no part: a smaller one passes it by."""
    with lease(POOL, 3):
        taken = []
        thread = in_background(2, taken)
        time.sleep(0.3)
        with lease(POOL, 1) as small:
            assert len(small) == 1
        assert taken == []
    thread.join(5)


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


def test_kinds_do_not_meet():
    """Core 0 and GPU 0 are two devices."""
    with lease(POOL, 4), lease(DevicePool("cpu", (0,)), 1) as cores:
        assert cores == (0,)


def test_more_than_the_pool_is_refused():
    """What can never be had is an error at once and not an endless wait."""
    with (
        pytest.raises(BadInputError, match="5 cuda devices are needed, 4 can be used"),
        lease(POOL, 5),
    ):
        pass


@pytest.mark.parametrize(("kind", "pp", "tp", "count"), [("cpu", 4, 1, 1), ("cuda", 4, 2, 8)])
def test_needed_devices(kind, pp, tp, count):
    """A CPU cell takes one core, a GPU cell one GPU for each rank."""
    assert DevicePool(kind, ()).needed(pp, tp) == count


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


def test_gpus_hidden_by_the_user_stay_hidden(nvidia_smi, monkeypatch):
    """`CUDA_VISIBLE_DEVICES` of the user limits the pool."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 0")
    nvidia_smi("printf '0, GPU-aa\\n1, GPU-bb\\n2, GPU-cc\\n'")
    assert find_devices("cuda").ids == (0, 2)


def test_gpus_may_be_named_by_uuid():
    """`CUDA_VISIBLE_DEVICES` may name GPUs by UUID; one that is not there is refused by name."""
    listed = "0, GPU-aa\n1, GPU-bb\n2, GPU-cc\n"
    assert visible_gpus(listed, "GPU-cc,1") == (1, 2)
    assert visible_gpus(listed, "") == ()
    with pytest.raises(BadInputError, match="MIG-7"):
        visible_gpus(listed, "0,MIG-7")


def test_no_gpu_is_refused(nvidia_smi):
    """A host whose nvidia-smi fails has one clear error with the cure."""
    nvidia_smi("exit 9")
    with pytest.raises(BadInputError, match=r"no GPU can be seen.*--pp-device cpu"):
        find_devices("cuda")
