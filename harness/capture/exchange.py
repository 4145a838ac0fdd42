"""Captures between xdist's controller, which runs cells, and its workers, which compare.

A folder of this run, told to each worker as it starts:
  alive.lock   held by the controller; the kernel frees it however the controller ends
  KEY.queued   the controller runs this cell, or will
  KEY.json     it has ended: where the capture lies, its manifest, whether it is fresh, or an error
  closed       the controller runs no more cells
"""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from ..engine.manifest import read_record, write_record
from ..plan.cell import Cell
from .manifest import Manifest
from .record import Capture
from .runner import CaptureResult, Runner
from .scratch import Scratch

_POLL_SECONDS = 0.05
_ALIVE_SECONDS = 1.0


@dataclass(frozen=True)
class _Outcome:
    """What `KEY.json` holds; without a manifest there is no capture, and `error` says why."""

    folder: Path = Path()
    manifest: Manifest | None = None
    fresh: bool = False
    error: str = ""


class CaptureServer:
    """The controller's side: what its runner makes, for all workers to see."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._scratch = Scratch(Path(tempfile.gettempdir()), "pp-harness-run-")
        self.folder = self._scratch.folder
        self._alive = FileLock(self.folder / "alive.lock", thread_local=False)
        self._alive.acquire()

    def submit_all(self, cells: Sequence[Cell]) -> None:
        """Queue cells; each is published as it ends."""
        new = [cell for cell in cells if not self._path(cell.key, "queued").exists()]
        for cell in new:
            self._path(cell.key, "queued").touch()
        for cell, future in zip(new, self._runner.submit_all(new), strict=True):
            future.add_done_callback(partial(self._publish, cell.key))

    def stop(self) -> None:
        """Tell workers that wait not to: no cell ends any more. May be called again."""
        if self.folder.is_dir():
            (self.folder / "closed").touch()

    def close(self) -> None:
        """Stop, and end what still runs."""
        self.stop()
        self._runner.close()
        self._alive.release()
        self._scratch.close()

    def _publish(self, key: str, future: "Future[CaptureResult]") -> None:
        if future.cancelled():
            outcome = _Outcome(error="the run was stopped")
        elif error := future.exception():
            outcome = _Outcome(error=f"{type(error).__name__}: {error}")
        else:
            result = future.result()
            outcome = _Outcome(result.capture.folder, result.capture.manifest, result.fresh)
        try:
            write_record(outcome, self._path(key, "json"))
        except FileNotFoundError:  # closed: the folder is gone, and nobody waits any more
            return

    def _path(self, key: str, kind: str) -> Path:
        return self.folder / f"{key}.{kind}"


class CaptureClient:
    """A worker's side: waits for the controller's captures, and for nothing that will not come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def obtain(self, cell: Cell) -> CaptureResult:
        """Return the capture of a cell as soon as the controller has it.

        Raises:
            RuntimeError: if the controller could not make it, has not queued it, has stopped or is
                gone.
        """
        looked = time.monotonic()
        while True:
            # In this order: what was published before the controller stopped counts.
            closed = not self._folder.is_dir() or (self._folder / "closed").exists()
            if result := self._published(cell):
                return result
            if closed:
                raise RuntimeError(f"{cell.id}: the controller has stopped")
            if not (self._folder / f"{cell.key}.queued").exists():
                raise RuntimeError(f"{cell.id}: the controller has not queued this cell")
            if time.monotonic() - looked > _ALIVE_SECONDS:
                looked = time.monotonic()
                self._check_alive(cell)
            time.sleep(_POLL_SECONDS)

    def _published(self, cell: Cell) -> CaptureResult | None:
        outcome = read_record(_Outcome, self._folder / f"{cell.key}.json")
        if outcome is None:
            return None
        if outcome.manifest is None:
            raise RuntimeError(f"{cell.id}: no capture: {outcome.error}")
        return CaptureResult(Capture(outcome.folder, outcome.manifest), outcome.fresh)

    def _check_alive(self, cell: Cell) -> None:
        try:
            with FileLock(self._folder / "alive.lock", thread_local=False).acquire(blocking=False):
                raise RuntimeError(f"{cell.id}: the controller is gone")
        except Timeout:
            return
