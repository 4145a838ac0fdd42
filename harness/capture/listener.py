"""Progress of cells: the runner reports, a listener shows."""

import time
from typing import Protocol

from ..plan.cell import Cell


class ProgressListener(Protocol):
    """Called from the runner's threads; every method must return at once and raise nothing."""

    def waits(self, cell: Cell) -> None:
        """A cell waits for devices, or for a capture, that another run holds."""

    def started(self, cell: Cell, devices: tuple[int, ...], expected: float) -> None:
        """An engine starts on its devices; it is expected to take so many seconds."""

    def ended(self, cell: Cell, status: str, seconds: float) -> None:
        """A cell ended: ok, failed, blocked, found (another run made its capture), or stopped."""

    def dropped(self, cell: Cell, reason: str) -> None:
        """The store's capture of a cell is damaged, and so its engine runs again."""


class ProgressReporter:
    """Tells a listener of one cell: once that it waits, that it starts, and how it ended.

    A cell that neither waited nor started is not reported.
    """

    def __init__(self, listener: ProgressListener | None, cell: Cell, expected: float) -> None:
        self._listener = listener
        self._cell = cell
        self._expected = expected
        self._began: float | None = None  # when it was first reported, or started
        self.status = "stopped"

    def waits(self) -> None:
        """Report that another run holds what the cell needs."""
        if self._listener and self._began is None:
            self._began = time.monotonic()
            self._listener.waits(self._cell)

    def started(self, devices: tuple[int, ...]) -> None:
        """Report that the engine of the cell starts."""
        if self._listener:
            self._began = time.monotonic()
            self._listener.started(self._cell, devices, self._expected)

    def __enter__(self) -> "ProgressReporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener and self._began is not None:
            self._listener.ended(self._cell, self.status, time.monotonic() - self._began)
