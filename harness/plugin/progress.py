"""Progress lines of a run, on pytest's terminal."""

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest


def progress_lines(config: pytest.Config) -> "ProgressLines | None":
    """Register the lines with pytest; None where it is quiet."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or reporter.verbosity < 0:
        return None
    lines = ProgressLines(reporter, config.pluginmanager.get_plugin("capturemanager"))
    config.pluginmanager.register(lines)
    return lines


class ProgressLines:
    """Prints what the runner's threads report, through pytest's terminal reporter.

    During an item pytest captures what goes to the terminal, and only the main thread may change
    that. So lines are kept from the start of an item to its end, but for the time that it waits for
    its captures (`shown`): the minutes in which lines come.
    """

    def __init__(self, reporter: Any, capture_manager: Any) -> None:
        self._reporter = reporter
        self._capture_manager = capture_manager  # None under -p no:capture
        self._lock = threading.Lock()
        self._keeping = False
        self._kept: list[str] = []

    def __call__(self, text: str) -> None:
        """Print a line, now or after the item that runs."""
        with self._lock:
            if self._keeping:
                self._kept.append(text)
            else:
                self._print(text)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        """Keep lines while an item runs, and print them after it."""
        self._keep()
        try:
            return (yield)
        finally:
            self._show()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Print lines as they come while the item that runs waits; for the main thread."""
        manager = self._capture_manager
        with manager.global_and_fixture_disabled() if manager else nullcontext():
            self._show()
            try:
                yield
            finally:
                self._keep()

    def _keep(self) -> None:
        with self._lock:  # not while a line is printed
            self._keeping = True

    def _show(self) -> None:
        with self._lock:
            self._keeping = False
            kept, self._kept = self._kept, []
            for text in kept:
                self._print(text)

    def _print(self, text: str) -> None:
        self._reporter.write_line(f"pp-harness: {text}")
        self._reporter.flush()  # a job's log is no terminal, and would keep lines for minutes
