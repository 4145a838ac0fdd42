"""The devices that the cells of a sweep may use."""

from ..engine.settings import Executor
from ..plan.sweep import Sweep
from .devices import DevicePool, find_devices
from .ray_cluster import cluster_devices


def find_pool(sweep: Sweep) -> DevicePool:
    """Find the devices of this host, or of the Ray cluster that the user has started.

    Raises:
        BadInputError: if there are none, or what they need is not installed.
    """
    if sweep.options.executor is Executor.RAY:
        return cluster_devices(sweep.installation.vllm.python)
    return find_devices(sweep.device, sweep.options.ranks_per_device)
