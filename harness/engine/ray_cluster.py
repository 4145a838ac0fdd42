"""PP over several hosts by vLLM's own Ray executor, on a cluster that the user has started."""

import os

# An actor needs these to be one of our ranks: the tree, our hooks, one thread.
_CARRIED = ("PYTHONPATH", "OMP_NUM_THREADS")
_OURS = "PP_HARNESS_"


def cluster_address() -> str:
    """Read the address of the user's cluster; `auto` is the one that runs on this host."""
    return os.environ.get("RAY_ADDRESS", "auto")


def join_cluster() -> None:
    """Connect this process to the cluster, before vLLM does: its actors get our environment."""
    import ray

    carried = {
        name: value
        for name, value in os.environ.items()
        if name in _CARRIED or name.startswith(_OURS)
    }
    ray.init(address=cluster_address(), runtime_env={"env_vars": carried})
