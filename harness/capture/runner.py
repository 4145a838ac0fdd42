"""Make captures: each cell once, several side by side in the order of the schedule."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from filelock import Timeout

from ..plan.cell import Cell
from .children import ForkServers
from .devices import DevicePool, lease
from .launch import launch
from .listener import Listener, ProgressReporter
from .manifest import Failure, Manifest, Status
from .order import CellPlan, devices_needed, plan_cells
from .record import Capture
from .schedule import Job, first_fit
from .store import Store

_POLL_SECONDS = 0.2
# Runs the engine of a cell into a folder, as `launch` does.
Launcher = Callable[..., Manifest]


@dataclass(frozen=True)
class CaptureResult:
    """A capture; `fresh` says that this run started its engine."""

    capture: Capture
    fresh: bool


class Runner:
    """Runs cells on a pool of devices into a store; a cell that is there already is not run.

    `jobs` caps the engines at once. A cell starts when it is the first of the schedule's list that
    fits; its thread then leases its devices, which other runs on this host may still hold.
    `time_limit` seconds after the first was queued nothing starts any more, engines are ended, and
    the cells that have no capture then are blocked.
    """

    def __init__(
        self,
        store: Store,
        pool: DevicePool,
        *,
        jobs: int | None = None,
        phase_timeout: float = 600,
        time_limit: float | None = None,
        listener: Listener = lambda _: None,
        launcher: Launcher = launch,
    ) -> None:
        self._store = store
        self._pool = pool
        self._phase_timeout = phase_timeout
        self._time_limit = time_limit
        self._timer: threading.Timer | None = None
        self._late = False
        self._listener = listener
        self._launch = launcher
        self._jobs = max(1, min(jobs or len(pool.ids), len(pool.ids)))
        self._threads = ThreadPoolExecutor(self._jobs)
        self._servers = ForkServers()
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._futures: dict[str, Future[CaptureResult]] = {}
        self._cells: dict[str, Cell] = {}
        self._waiting: list[Job] = []
        self._running: dict[str, int] = {}  # key -> devices

    def submit(self, cells: Sequence[Cell]) -> "list[Future[CaptureResult]]":
        """Queue the cells that are not queued yet, in the order of the shortest schedule.

        Raises:
            ValueError: if one needs more devices than there are (refused before: `judge_devices`).
        """
        with self._lock:
            if self._time_limit is not None and self._timer is None:
                self._timer = threading.Timer(self._time_limit, self._expire)
                self._timer.daemon = True
                self._timer.start()
            new = {cell.key: cell for cell in cells if cell.key not in self._futures}
            self._futures.update((key, Future()) for key in new)
            self._cells.update(new)
            for key, cell in new.items():
                if capture := self._store.find(key):
                    self._futures[key].set_result(CaptureResult(capture, fresh=False))
                elif self._late:
                    self._futures[key].set_result(self._too_late(cell))
                elif reason := self._store.damaged(key):
                    self._listener(f"{cell.id} is run again, its capture is damaged: {reason}")
            missing = [cell for key, cell in new.items() if not self._futures[key].done()]
            if missing:
                todo = [*(self._cells[job.name] for job in self._waiting), *missing]
                self._waiting = [scheduled.job for scheduled in self._schedule(todo).jobs]
                self._dispatch()
            return [self._futures[cell.key] for cell in cells]

    def plan(self, cells: Sequence[Cell]) -> CellPlan:
        """Return the schedule in which cells would run, those left out that are there already."""
        stored = tuple(cell for cell in cells if self._store.find(cell.key))
        todo = [cell for cell in cells if cell not in stored]
        return replace(self._schedule(todo), stored=stored)

    def _schedule(self, cells: Sequence[Cell]) -> CellPlan:
        known = (capture.manifest for _, capture in self._store.all() if capture)
        return plan_cells(cells, known, self._pool, self._jobs)

    def obtain(self, cell: Cell) -> CaptureResult:
        """Return the capture of a cell, whenever it is there.

        Raises:
            InterruptedError: if the runner was closed before.
            concurrent.futures.CancelledError: if it was closed before the cell started.
        """
        return self.submit([cell])[0].result()

    def stop(self) -> None:
        """Tell what runs to end, and wait for nothing; `close` does the rest."""
        self._stop.set()

    def close(self) -> None:
        """Drop what has not started and end what has; whole captures are in the store already."""
        if self._timer is not None:
            self._timer.cancel()
        self.stop()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for job in waiting:
            self._futures[job.name].cancel()
        self._threads.shutdown(wait=True)
        self._servers.close()

    def _expire(self) -> None:
        """End what runs and block what has no capture yet: the time limit is reached."""
        with self._lock:
            self._late = True
            self._stop.set()
            waiting, self._waiting = self._waiting, []
        for job in waiting:
            self._futures[job.name].set_result(self._too_late(self._cells[job.name]))

    def _too_late(self, cell: Cell) -> CaptureResult:
        error = f"no capture within {self._time_limit:g} s; one more run goes on from here"
        return self._unwritten(cell, error, "time limit", fresh=False)

    def _unwritten(self, cell: Cell, error: str, phase: str, *, fresh: bool) -> CaptureResult:
        """Return the result of a cell whose engine was never started, or left nothing."""
        failure = Failure(error=error, phase=phase)
        manifest = Manifest(
            cell=cell, status=Status.BLOCKED, failure=failure, seconds={"total": 0.0}
        )
        return CaptureResult(Capture(self._store.folder(cell.key), manifest), fresh)

    def _dispatch(self) -> None:
        """Start whatever is to start now."""
        with self._lock:
            while len(self._running) < self._jobs and not self._stop.is_set():
                free = len(self._pool.ids) - sum(self._running.values())
                index = first_fit(self._waiting, free)
                if index is None:
                    return
                job = self._waiting.pop(index)
                self._running[job.name] = job.width
                self._threads.submit(self._run, job)

    def _run(self, job: Job) -> None:
        key = job.name
        future = self._futures[key]
        try:
            future.set_result(self._make(self._cells[key], job.seconds))
        except BaseException as error:
            future.set_exception(error)
        finally:
            with self._lock:
                del self._running[key]
            self._dispatch()

    def _make(self, cell: Cell, expected: float) -> CaptureResult:
        """Return the capture of a cell, made now unless another run was first.

        A machine that lets nothing be written, a full disk, blocks the cell as a time-out does.
        """
        try:
            with (
                ProgressReporter(self._listener, cell, expected) as progress,
                self._locked(cell.key, progress.waits),
            ):
                if capture := self._store.find(cell.key):
                    progress.status = "found"
                    return CaptureResult(capture, fresh=False)
                return self._run_engine(cell, progress)
        except InterruptedError:  # an OSError too: the run was stopped
            if self._late:
                return self._too_late(cell)
            raise
        except OSError as error:
            return self._unwritten(cell, f"{type(error).__name__}: {error}", "store", fresh=True)

    def _run_engine(self, cell: Cell, progress: ProgressReporter) -> CaptureResult:
        needed = devices_needed(cell, self._pool)
        with (
            lease(self._pool, needed, self._stop, progress.waits) as devices,
            self._store.workspace() as folder,
        ):
            progress.started(devices)
            manifest = self._launch(
                cell,
                folder,
                devices,
                self._servers,
                phase_timeout=self._phase_timeout,
                stop=self._stop,
            )
            progress.status = manifest.status
            return CaptureResult(self._store.commit(cell.key, folder, manifest), fresh=True)

    @contextmanager
    def _locked(self, key: str, waits: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of a capture; another run may be making it, for minutes."""
        lock = self._store.lock(key)
        while True:
            try:
                lock.acquire(timeout=_POLL_SECONDS)
                break
            except Timeout:
                waits()
                if self._stop.is_set():
                    raise InterruptedError("the run was stopped") from None
        try:
            yield
        finally:
            lock.release()
