"""Progress of a cell: a line when it waits, starts, ends, or has to run again."""

import time
from collections.abc import Callable

from ..plan.cell import Cell

# Takes a line. The runner's threads call it; it must return at once and raise nothing.
Listener = Callable[[str], None]


class ProgressReporter:
    """Tells a listener of one cell: once that it waits, that it starts, and how it ended.

    A cell that neither waited nor started is not reported. `expected` is in seconds; `status` is
    that of the capture, or `found` (another run made it), or `stopped`.
    """

    def __init__(self, listener: Listener, cell: Cell, expected: float) -> None:
        self._listener = listener
        self._cell = cell
        self._expected = expected
        self._began: float | None = None  # when it was first reported, or started
        self.status = "stopped"

    def waits(self) -> None:
        """Report that another run holds the devices of the cell, or its capture."""
        if self._began is None:
            self._began = time.monotonic()
            self._listener(f"{self._cell.id} waits for another run on this machine")

    def started(self, devices: tuple[int, ...]) -> None:
        """Report that the engine of the cell starts."""
        self._began = time.monotonic()
        on = f"{self._cell.device} {' '.join(map(str, devices))}"
        self._listener(f"{self._cell.id} started on {on}, about {self._expected:.0f} s")

    def __enter__(self) -> "ProgressReporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._began is not None:
            seconds = time.monotonic() - self._began
            self._listener(f"{self._cell.id} {self.status} after {seconds:.1f} s")
