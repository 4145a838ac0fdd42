"""The ranks that were dead before vLLM ended the others: known in the engine's process alone.

vLLM notices a dead rank and ends its neighbours, whose last words ("cancelled", a closed
connection) would else be taken for the cause. Before it does, the ranks that live are asked for
their stacks, and `deaths.json` gets how the dead ended.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

from . import stacks
from .wrap import names_of_vllm, wrap

FILE = "deaths.json"
_STACK_SECONDS = 2.0
_DYING_SECONDS = 2.0
_POLL_SECONDS = 0.01


def install(folder: Path) -> None:
    """Patch vLLM's executor; one that does not start its ranks as processes is left alone."""
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    looked = False

    def look(processes: list[Any], patience: float) -> None:
        """Only once: what ends later ends because of the first, or because it is told to."""
        nonlocal looked
        if not looked:
            looked = True
            _record(folder, _dead_processes(processes, patience))

    def shutdown(method: Any, executor: Any) -> Any:
        workers = getattr(executor, "workers", None) or ()
        look([worker.proc for worker in workers], _patience(executor))
        return method(executor)

    def end_ranks(method: Any, processes: list[Any]) -> Any:
        # Ranks that never got ready are ended by this alone.
        look(processes, _DYING_SECONDS)
        return method(processes)

    wrap(MultiprocExecutor, "shutdown", shutdown)
    wrap(MultiprocExecutor, "_ensure_worker_termination", end_ranks)


def install_ray(folder: Path) -> None:
    """Patch the executor whose ranks are actors of Ray, which knows of no status."""
    with names_of_vllm():
        from vllm.v1.executor.ray_executor_v2 import RayExecutorV2

    def shutdown(method: Any, executor: Any) -> Any:
        if not getattr(executor, "shutting_down", False):
            _record(folder, _dead_actors(executor))
        return method(executor)

    wrap(RayExecutorV2, "shutdown", shutdown)


def _patience(executor: Any) -> float:
    """Return how many seconds a rank may take to die: its pipes have closed, its process goes."""
    return _DYING_SECONDS if getattr(executor, "is_failed", False) else 0


def _record(folder: Path, dead: dict[int, int | None]) -> None:
    """Write which ranks are dead, each with the status of its process, if one is known."""
    if dead:
        content = [{"rank": rank, "status": status} for rank, status in dead.items()]
        (folder / FILE).write_text(json.dumps(content), encoding="utf-8")
        stacks.request(folder, _STACK_SECONDS)


def _dead_processes(processes: list[Any], patience: float) -> dict[int, int | None]:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and not any(p.exitcode is not None for p in processes):
        time.sleep(_POLL_SECONDS)
    return {
        _rank(process, index): process.exitcode
        for index, process in enumerate(processes)
        if process.exitcode is not None
    }


def _dead_actors(executor: Any) -> dict[int, int | None]:
    """Return the ranks whose loop has ended: vLLM runs it as one task of the actor."""
    import ray

    loops = {
        handle.run_ref: handle.rank
        for handle in getattr(executor, "ray_worker_handles", ())
        if handle.run_ref is not None
    }
    if not loops:
        return {}
    ray.wait(list(loops), num_returns=1, timeout=_patience(executor))
    ended, _ = ray.wait(list(loops), num_returns=len(loops), timeout=0)
    return {loops[each]: None for each in ended}


def _rank(process: Any, index: int) -> int:
    number = re.search(r"\d+$", process.name)
    return int(number[0]) if number else index
