"""Start the child of one cell, watch its phases, and say what became of it."""

import re
import signal
import threading
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..engine.environment import cell_environment
from ..engine.failures import first_failure, is_ours
from ..engine.json_lines import read_lines
from ..engine.manifest import (
    EFFECTIVE,
    REQUEST,
    RESULT,
    Effective,
    EngineResult,
    Request,
    read_record,
    write_record,
)
from ..engine.settings import EngineSettings, Executor
from ..plan.cell import Cell
from ..plan.cost import rank_bytes
from .children import Child, ForkServers
from .manifest import OUT_OF_MEMORY, Failure, Manifest, Status
from .memory import MemoryWatch
from .postmortem import clear, death, deaths_of, examine, positions, short_stacks, where

_POLL_SECONDS = 0.1
# How often the memory of each process is read: what it held is not to be had once it was killed.
_LOOK_SECONDS = 0.5
_TAIL_LINES = 30
# What an engine gets to end by itself after a rank has failed: those that do take up to 4 s on two
# busy cores. Its other ranks may wait for that one until vLLM gives up, after 300 s.
_GRACE_SECONDS = 10.0
# A log line that names an exception, with vLLM's prefixes before it.
_ERROR_LINE = re.compile(r"(?P<error>\b[A-Z]\w*(?:Error|Exception|Interrupt)\b: .+)$")
# Wrappers around the cause; they say where to look and not what happened.
_WRAPPERS = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "Executor failed",
    "cancelled",
)
# What the machine refuses, whoever asked for it: no word about the model.
_MACHINE = re.compile(
    r"MemoryError|OutOfMemoryError|can't allocate memory|out of memory|No space left on device"
    r"|Disk quota exceeded|Read-only file system|Too many open files|Cannot allocate memory"
    r"|EADDRINUSE|[Aa]ddress already in use"
)


def cell_request(cell: Cell, folder: Path, devices: tuple[int, ...], **control: Any) -> Request:
    """Build the request of a cell; `control` are the fields of `Request` for control runs."""
    settings = {entry.name: getattr(cell, entry.name) for entry in fields(EngineSettings)}
    return Request(
        **settings,
        folder=folder,
        devices=devices,
        model_path=cell.model_path,
        gsm8k=cell.gsm8k,
        **control,
    )


def launch(
    cell: Cell,
    folder: Path,
    devices: tuple[int, ...],
    servers: ForkServers,
    *,
    phase_timeout: float,
    tracing: bool = True,
    worker_start: str = "fork",
    changes: tuple[str, ...] = (),
    ask_under_changes: bool = True,
    stop: threading.Event | None = None,
) -> Manifest:
    """Run one cell into `folder` and return its manifest, not yet sealed.

    `phase_timeout` is in seconds and holds for each phase (start, engine, probes, gsm8k,
    shutdown). However the child ends, its whole process group is gone on return. `tracing` and
    `worker_start` (fork or spawn, on the CPU) are for control runs: neither may change a result.
    `changes` and `ask_under_changes` are those of `Request`.

    Raises:
        InterruptedError: if `stop` was set before the child ended.
    """
    request = cell_request(
        cell,
        folder,
        devices,
        worker_start=worker_start,
        changes=changes,
        ask_under_changes=ask_under_changes,
    )
    path, log = folder / REQUEST, folder / "log.txt"
    write_record(request, path)
    began = time.time()
    log.touch()
    memory = MemoryWatch(cell, folder)
    child = servers.start(cell, path, cell_environment(request, tracing=tracing), log)
    stopped: dict[int, str] = {}
    try:
        late = _watch(child, folder, phase_timeout, stop, memory)
        status = child.poll()
        # Ray's ranks may be on another host, where these numbers are other processes.
        if (late is not None or status) and cell.executor is Executor.MP:
            stopped = examine(folder)
    finally:
        child.kill()
    result = read_record(EngineResult, folder / RESULT)
    end = _Ended(folder, status, late, phase_timeout, stopped, result, memory)
    outcome, failure = end.outcome()
    if failure is None:
        clear(folder)
    result = result or EngineResult()
    ended = time.time()
    phases = _timeline(folder, began, ended)
    # Until its first phase begins the child's server imports vLLM.
    seconds = {"start": phases["start"][1], **result.seconds, "total": round(ended - began, 3)}
    return Manifest(
        cell=cell,
        status=outcome,
        failure=failure,
        seconds=seconds,
        began=began,
        phases=phases,
        peak_bytes=result.peak_bytes,
        expected_bytes=rank_bytes(cell),
        effective=read_record(Effective, folder / EFFECTIVE),
        devices=devices,
    )


def _watch(
    child: Child,
    folder: Path,
    phase_timeout: float,
    stop: threading.Event | None,
    memory: MemoryWatch,
) -> str | None:
    """Wait for the child; return the phase that outlasted the limit.

    None if it ended by itself, or a rank failed and the rest did not end in the time it then has.
    """
    failed: float | None = None
    looked = 0.0
    while child.poll() is None:
        if stop is not None and stop.is_set():
            raise InterruptedError("the run was stopped")
        if time.monotonic() - looked > _LOOK_SECONDS:
            looked = time.monotonic()
            memory.look()
        if failed is None and any(folder.glob("failure.*.json")):
            failed = time.time()
        if failed is not None and time.time() - failed > _GRACE_SECONDS:
            return None
        phase, since = _current_phase(folder)
        if time.time() - since > phase_timeout:
            return phase
        time.sleep(_POLL_SECONDS)
    return None


def _current_phase(folder: Path) -> tuple[str, float]:
    started = started_phases(folder)
    return started[-1] if started else ("start", (folder / REQUEST).stat().st_mtime)


def started_phases(folder: Path) -> list[tuple[str, float]]:
    """Return the phases that began, in order, each with its time; a torn last line is left out."""
    try:
        entries = list(read_lines(folder / "phases.jsonl"))
    except OSError:
        return []
    return [(str(entry["phase"]), float(entry["time"])) for entry in entries]


def _timeline(folder: Path, began: float, ended: float) -> dict[str, tuple[float, float]]:
    """Return the start and end of each phase in seconds after `began`; each ends with the next."""
    started = [("start", began), *started_phases(folder)]
    ends = [*(time for _, time in started[1:]), ended]
    return {
        phase: (round(start - began, 3), round(end - began, 3))
        for (phase, start), end in zip(started, ends, strict=True)
    }


@dataclass(frozen=True)
class _Ended:
    """What an engine left, and how it ended.

    `status` is the exit status of its process, `late` the phase that outlasted the limit of
    `phase_timeout` seconds; `stopped` are the ranks that were stopped, in words.
    """

    folder: Path
    status: int | None
    late: str | None
    phase_timeout: float
    stopped: dict[int, str]
    result: EngineResult | None
    memory: MemoryWatch

    def outcome(self) -> tuple[Status, Failure | None]:
        """Tell what became of the engine, and the root cause where it is not whole."""
        whole = self.result is not None and self.result.error is None
        if self.late is None and self.status == 0 and whole:
            return Status.OK, None
        at, stacks = positions(self.folder), short_stacks(self.folder)
        status, cause = self._silent_rank(at, stacks) or self._spoken()
        ranks = {str(rank): position for rank, position in at.items()}
        return status, replace(cause, ranks=ranks, stacks=stacks)

    def _silent_rank(
        self, at: dict[int, dict[str, Any]], stacks: dict[str, list[str]]
    ) -> tuple[Status, Failure] | None:
        """Tell the cause where a rank died or the engine stands still without saying why."""
        phase, _ = _current_phase(self.folder)
        if dead := deaths_of(self.folder):
            first = min(dead)
            killed = {
                rank: words
                for rank, status in dead.items()
                if (words := self.memory.killed(f"rank{rank}", status))
            }
            words = "; ".join(
                f"rank {rank} {killed.get(rank) or death(status)}"
                for rank, status in sorted(dead.items())
            )
            of_first = at.get(first, {}).get("phase") or phase
            kind = OUT_OF_MEMORY if killed else ""
            return self._blocked(f"{words} in phase {phase}", of_first, rank=first, type=kind)
        if self.late is None or any(self.folder.glob("failure.*.json")):
            return None
        words = "; ".join(
            f"rank {rank} {self.stopped[rank] + ' ' if rank in self.stopped else 'is '}"
            f"{where(position, stacks.get(f'rank{rank}'))}"
            for rank, position in sorted(at.items())
        )
        error = f"no end of phase {self.late} within {self.phase_timeout:.0f} s"
        rank = min(self.stopped, default=None)
        return self._blocked(
            f"{error}: {words}" if words else error, phase, rank=rank, stands_still=True
        )

    def _spoken(self) -> tuple[Status, Failure]:
        """Tell the cause as a rank, the engine or the end of its process tells it."""
        if (first := first_failure(self.folder)) is not None:
            said = asdict(first)
            del said["time"], said["message"]
            blocked = first.ours or _MACHINE.search(first.error)
            status = Status.BLOCKED if blocked else Status.FAILED
            return status, Failure(error=first.error, **said)
        phase, _ = _current_phase(self.folder)
        if self.result is not None and self.result.error is not None:
            error, trace = self.result.error.error, self.result.error.traceback
            ours = is_ours(trace)
            # What the engine itself refuses is its failure; what fails around it blocks the answer.
            failed = phase == "engine" and not ours and not _MACHINE.search(error)
            if any(wrapper in error for wrapper in _WRAPPERS):
                line = _cause_line(self.folder / "log.txt")
                # Without a line the wrapper speaks of an exception, but no rank left one.
                failed = failed and line is not None and not _MACHINE.search(line)
                error = line or f"a rank died without an exception ({error})"
            status = Status.FAILED if failed else Status.BLOCKED
            return status, Failure(error=error, phase=phase, traceback=trace, ours=ours)
        if self.status and (killed := self.memory.killed("engine", self.status)):
            return self._blocked(f"the engine's process {killed}", phase, type=OUT_OF_MEMORY)
        if self.status is not None and self.status < 0:
            error = f"the engine's process was killed by {signal.Signals(-self.status).name}"
        else:
            error = f"the engine's process ended with status {self.status} and no result"
        return self._blocked(error, phase)

    def _blocked(self, error: str, phase: str, **more: Any) -> tuple[Status, Failure]:
        log = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        tail = "\n".join(log.splitlines()[-_TAIL_LINES:])
        return Status.BLOCKED, Failure(error=error, phase=phase, traceback=tail, **more)


def _cause_line(log: Path) -> str | None:
    """Return the first line of the log that names an exception and is no wrapper's."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _ERROR_LINE.search(line)
        if match and not any(wrapper in line for wrapper in _WRAPPERS):
            return match["error"]
    return None
