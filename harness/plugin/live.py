"""What runs now, while a run waits for its engines: a table on a terminal, else plain lines."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..capture.launch import started_phases
from ..capture.watch import Watch
from ..plan.cell import Cell

if TYPE_CHECKING:
    from rich.table import Table

_REFRESHES_PER_SECOND = 4


def watch_for(reporter: Any) -> "LiveView | PlainLines | None":
    """Return the view that fits pytest's terminal; None where it is told to be quiet."""
    if reporter is None or reporter.verbosity < 0:
        return None
    file = reporter._tw._file
    is_terminal = file.isatty() and os.environ.get("TERM") != "dumb"
    return LiveView(reporter) if is_terminal and not os.environ.get("CI") else PlainLines(reporter)


def _uncaptured(file: TextIO) -> TextIO:
    """Return a stream of its own to where `file` leads now.

    While an item waits for its engines, pytest's capture has the descriptor lead elsewhere, and
    that is just when a view has something to say.
    """
    try:
        descriptor = os.dup(file.fileno())
    except (OSError, ValueError):  # not a file of the system: nothing redirects it
        return file
    file.flush()
    return os.fdopen(descriptor, "w", buffering=1, encoding=file.encoding, errors=file.errors)


def dropped_line(cell: Cell, reason: str) -> str:
    """Return in one line why a capture that was there is not used."""
    return f"{cell.id} is run again, its capture is damaged: {reason}"


class PlainLines(Watch):
    """A line when a cell starts and one when it ends: for logs.

    pytest's own lines take the same way meanwhile, so that they stay in order.
    """

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter
        self._given: TextIO = reporter._tw._file
        reporter._tw._file = _uncaptured(self._given)

    def waits(self, cell: Cell, expected: float | None) -> None:  # noqa: ARG002
        """Say why nothing happens."""
        self._line(f"{cell.id} waits for another run on this machine")

    def started(
        self,
        cell: Cell,
        folder: Path,  # noqa: ARG002 - the table reads it
        devices: tuple[int, ...],
        expected: float | None,
    ) -> None:
        """Print the start of a cell."""
        about = f", about {expected:.0f} s" if expected else ""
        self._line(f"{cell.id} started on {cell.device} {_numbers(devices)}{about}")

    def ended(self, cell: Cell, status: str, seconds: float) -> None:
        """Print what became of it."""
        self._line(f"{cell.id} {status} after {seconds:.1f} s")

    def dropped(self, cell: Cell, reason: str) -> None:
        """Print why a capture that was there is not used."""
        self._line(dropped_line(cell, reason))

    def _line(self, text: str) -> None:
        self._reporter.write_line(f"pp-harness: {text}")

    def close(self) -> None:
        """Give pytest its own file back."""
        _close(self._reporter._tw._file, self._given)
        self._reporter._tw._file = self._given


@dataclass
class _Running:
    """A row; a cell that waits has no folder yet."""

    cell: Cell
    folder: Path | None
    devices: tuple[int, ...]
    expected: float | None
    began: float = field(default_factory=time.monotonic)


class LiveView(Watch):
    """A table below pytest's own output: cell, phase, devices, elapsed, expected.

    While it stands, pytest writes through us: whole lines go above the table, the line of dots that
    is not yet whole is the table's first.
    """

    def __init__(self, reporter: Any) -> None:
        from rich.console import Console
        from rich.live import Live

        self._writer = reporter._tw
        self._given: TextIO = self._writer._file
        self._file = _uncaptured(self._given)
        self._lock = threading.RLock()
        self._running: dict[str, _Running] = {}
        self._tail = ""
        self._live = Live(
            console=Console(file=self._file, force_terminal=True),
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=False,  # pytest holds its own file, which we replace
            redirect_stderr=False,
        )

    def waits(self, cell: Cell, expected: float | None) -> None:
        """Add a row that says so."""
        self._show(_Running(cell, None, (), expected))

    def started(
        self, cell: Cell, folder: Path, devices: tuple[int, ...], expected: float | None
    ) -> None:
        """Add a row, or let the cell's row go on from waiting."""
        self._show(_Running(cell, folder, devices, expected))

    def _show(self, row: _Running) -> None:
        """Take a row into the table, which begins with the first."""
        from rich.console import ConsoleDimensions

        with self._lock:
            self._running[row.cell.key] = row
            # rich asks the standard streams, which pytest's capture has closed to it.
            with suppress(OSError):
                columns, lines = os.get_terminal_size(self._file.fileno())
                self._live.console.size = ConsoleDimensions(columns, lines)
            if not self._live.is_started:
                self._writer._file = self
                self._live.start()

    def ended(self, cell: Cell, status: str, seconds: float) -> None:  # noqa: ARG002
        """Take the row away; pytest's own lines say what came of it."""
        with self._lock:
            self._running.pop(cell.key, None)
            if not self._running:
                self._rest()

    def _rest(self) -> None:
        """Give the terminal back to pytest until the next cell."""
        if self._live.is_started:
            self._live.stop()
            self._writer._file = self._given
            self._file.write(self._tail)
            self._file.flush()
            self._tail = ""

    def dropped(self, cell: Cell, reason: str) -> None:
        """Print why a capture that was there is not used, above the table if it stands."""
        with self._lock:
            self._writer.line(f"pp-harness: {dropped_line(cell, reason)}")

    def close(self) -> None:
        """Give the terminal back to pytest."""
        with self._lock:
            self._rest()
            _close(self._file, self._given)

    # ---- the file that pytest writes to -------------------------------------------------------

    def write(self, text: str) -> int:
        """Print whole lines above the table and keep the rest."""
        from rich.text import Text

        with self._lock:
            *lines, self._tail = (self._tail + text).split("\n")
            for line in lines:
                self._live.console.print(Text.from_ansi(line), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        """Nothing waits but the line that is not whole, which the table shows."""

    def isatty(self) -> bool:
        """Whether this is a terminal: else there would be no table."""
        return True

    def fileno(self) -> int:
        """Return the terminal's own."""
        return self._file.fileno()

    @property
    def encoding(self) -> str:
        """Return the terminal's own."""
        return self._file.encoding

    def _render(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        outer = Table.grid()
        if self._tail:
            outer.add_row(Text.from_ansi(self._tail))
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("cell", "phase", "devices"):
            table.add_column(title, no_wrap=True)
        for title in ("elapsed", "expected"):
            table.add_column(title, justify="right", no_wrap=True)
        with self._lock:
            for one in self._running.values():
                table.add_row(
                    Text(one.cell.id),
                    _phase(one.folder),
                    _numbers(one.devices),
                    f"{time.monotonic() - one.began:.0f} s",
                    f"{one.expected:.0f} s" if one.expected else "?",
                )
        outer.add_row(table)
        return outer


def _close(stream: TextIO, given: TextIO) -> None:
    """Close a stream that is ours, and not the one that pytest gave."""
    stream.flush()
    if stream is not given:
        stream.close()


def _phase(folder: Path | None) -> str:
    if folder is None:
        return "waits for another run"
    phases = started_phases(folder)
    return phases[-1][0] if phases else "start"


def _numbers(devices: tuple[int, ...]) -> str:
    return " ".join(map(str, devices))
