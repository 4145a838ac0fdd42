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
from .wrap import wrap

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
            _record(folder, processes, patience)

    def shutdown(method: Any, executor: Any) -> Any:
        failed = getattr(executor, "is_failed", False)
        workers = getattr(executor, "workers", None) or ()
        look([worker.proc for worker in workers], _DYING_SECONDS if failed else 0)
        return method(executor)

    def end_ranks(method: Any, processes: list[Any]) -> Any:
        # Ranks that never got ready are ended by this alone.
        look(processes, _DYING_SECONDS)
        return method(processes)

    wrap(MultiprocExecutor, "shutdown", shutdown)
    wrap(MultiprocExecutor, "_ensure_worker_termination", end_ranks)


def _record(folder: Path, processes: list[Any], patience: float) -> None:
    """Write which are dead; a rank whose pipes have closed may be dying still, for `patience` s."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and not any(p.exitcode is not None for p in processes):
        time.sleep(_POLL_SECONDS)
    dead = [
        {"rank": _rank(process, index), "status": process.exitcode}
        for index, process in enumerate(processes)
        if process.exitcode is not None
    ]
    if dead:
        (folder / FILE).write_text(json.dumps(dead), encoding="utf-8")
        stacks.request(folder, _STACK_SECONDS)


def _rank(process: Any, index: int) -> int:
    number = re.search(r"\d+$", process.name)
    return int(number[0]) if number else index
