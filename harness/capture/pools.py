"""The devices that the cells of a sweep may use: this host's, or those of a Ray cluster."""

import subprocess
import sys
from pathlib import Path

from ..engine.ray_cluster import cluster_address
from ..engine.settings import Executor
from ..errors import BadInputError
from ..plan.sweep import Sweep
from .devices import DevicePool, find_devices

_ANSWER_SECONDS = 60
_COUNT = """\
import ray
ray.init(address="{address}", logging_level="error", log_to_driver=False)
print(int(ray.cluster_resources().get("GPU", 0)))
"""


def find_pool(sweep: Sweep) -> DevicePool:
    """Find the devices of this host, or of the Ray cluster that the user has started.

    Raises:
        BadInputError: if there are none, or what they need is not installed.
    """
    if sweep.options.executor is Executor.RAY:
        return cluster_devices(sweep.installation.vllm.python)
    return find_devices(sweep.device, sweep.options.ranks_per_device)


def cluster_devices(python: Path | None = None) -> DevicePool:
    """Return the GPUs of the cluster by number; which of them a rank gets is for Ray to say.

    `python` is the interpreter of the environment that holds vLLM; None: this one.

    Raises:
        BadInputError: if Ray is not installed, or no cluster answers.
    """
    address = cluster_address()
    try:
        done = subprocess.run(
            [python or sys.executable, "-c", _COUNT.format(address=address)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer within {_ANSWER_SECONDS} s"
    else:
        if done.returncode == 0:
            return DevicePool("ray", tuple(range(int(done.stdout.split()[-1]))))
        if "No module named 'ray'" in done.stderr:
            raise BadInputError("--pp-executor ray: Ray is not installed; install the extra 'ray'")
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise BadInputError(
        f"--pp-executor ray: no cluster at {address} ({reason}); start one by `ray start --head`, "
        "or name it by RAY_ADDRESS"
    )
