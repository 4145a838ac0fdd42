"""Who wants to know which cells run: the runner tells, a view shows."""

from pathlib import Path
from typing import Protocol

from ..plan.cell import Cell


class Watch(Protocol):
    """Told by the runner's threads; must return at once and raise nothing."""

    def waits(self, cell: Cell, expected: float | None) -> None:
        """Take note that a cell waits for devices, or a capture, that another run has in hand."""

    def started(
        self, cell: Cell, folder: Path, devices: tuple[int, ...], expected: float | None
    ) -> None:
        """Take note that a cell starts; it writes into `folder`, `expected` is in seconds."""

    def ended(self, cell: Cell, status: str, seconds: float) -> None:
        """Take note that it ended: ok, failed, blocked, found (another run made it), or stopped."""

    def dropped(self, cell: Cell, reason: str) -> None:
        """Take note that a capture of the store is damaged, and so its cell runs again."""
