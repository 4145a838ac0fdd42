"""Make captures: each cell once, several side by side, whoever asks first."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from filelock import Timeout

from .cell import Cell
from .children import ForkServers
from .devices import DevicePool, lease
from .launch import launch
from .record import Capture
from .store import Store

_POLL_SECONDS = 0.2


class Runner:
    """Runs cells on a pool of devices into a store; a cell that is there already is not run."""

    def __init__(
        self, store: Store, pool: DevicePool, *, jobs: int | None = None, phase_timeout: float = 600
    ) -> None:
        self._store = store
        self._pool = pool
        self._phase_timeout = phase_timeout
        self._threads = ThreadPoolExecutor(jobs or max(1, len(pool.ids)))
        self._servers = ForkServers()
        self._stop = threading.Event()
        self._futures: dict[str, Future[Capture]] = {}
        self.fresh: set[str] = set()

    def submit(self, cell: Cell) -> "Future[Capture]":
        """Queue a cell unless it is queued already; the future gives its capture."""
        if cell.key not in self._futures:
            self._futures[cell.key] = self._threads.submit(self._make, cell)
        return self._futures[cell.key]

    def close(self) -> None:
        """Drop what has not started and end what has; whole captures are in the store already."""
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._servers.close()

    def _make(self, cell: Cell) -> Capture:
        if capture := self._store.find(cell.key):
            return capture
        with self._locked(cell.key):
            if capture := self._store.find(cell.key):  # another process was first
                return capture
            with (
                lease(self._pool, self._pool.needed(cell.pp, cell.tp), self._stop) as devices,
                self._store.workspace() as folder,
            ):
                manifest = launch(
                    cell,
                    folder,
                    devices,
                    self._servers,
                    phase_timeout=self._phase_timeout,
                    stop=self._stop,
                )
                self.fresh.add(cell.key)
                return self._store.commit(cell.key, folder, manifest)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock of a capture; another run may be making it, for minutes."""
        lock = self._store.lock(key)
        while True:
            try:
                lock.acquire(timeout=_POLL_SECONDS)
                break
            except Timeout:
                if self._stop.is_set():
                    raise InterruptedError("the run was stopped") from None
        try:
            yield
        finally:
            lock.release()
