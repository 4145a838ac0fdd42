"""PP over several hosts by vLLM's own Ray executor, on a cluster that the user has started."""

import os
import subprocess
import sys
from pathlib import Path

from ..errors import BadInputError
from .devices import DevicePool

# What an actor needs to be one of our ranks: the tree, our hooks, one thread.
_CARRIED = ("PYTHONPATH", "OMP_NUM_THREADS")
_OURS = "PP_HARNESS_"
_ANSWER_SECONDS = 60
_COUNT = """\
import ray
ray.init(address="{address}", logging_level="error", log_to_driver=False)
print(int(ray.cluster_resources().get("GPU", 0)))
"""


def cluster_address() -> str:
    """Return the address of the user's cluster; `auto` is the one that runs on this host."""
    return os.environ.get("RAY_ADDRESS", "auto")


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


def join_cluster() -> None:
    """Connect this process to the cluster, before vLLM does: its actors get our environment."""
    import ray

    carried = {
        name: value
        for name, value in os.environ.items()
        if name in _CARRIED or name.startswith(_OURS)
    }
    ray.init(address=cluster_address(), runtime_env={"env_vars": carried})
