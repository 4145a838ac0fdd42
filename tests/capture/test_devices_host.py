"""What the host must have for cells to run."""

import pytest

from harness.capture import devices
from harness.errors import BadInputError


def test_cpu_cells_need_the_numa_library(monkeypatch):
    """Without it vLLM's kernels are missing; the run ends at once and names the package."""
    monkeypatch.setattr(devices, "_NUMA", "libnuma-that-is-nowhere.so.1")
    with pytest.raises(BadInputError, match="libnuma1"):
        devices.find_devices("cpu")


def test_cpu_devices_are_the_cores_that_this_process_may_use():
    """An affinity mask narrows the pool."""
    pool = devices.find_devices("cpu")
    assert pool.kind == "cpu"
    assert set(pool.ids) == devices.os.sched_getaffinity(0)
