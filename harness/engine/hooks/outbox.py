"""Writes that are put off until no one waits: a hook must not make the device or a stage wait.

A synchronisation in a hook would hide the very races between stages and batches that a run looks
for. On a GPU what a step left behind is read once the device has passed it, on a stream of its own.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch


class Outbox:
    """Writes in the order in which they were put, each once its tensors can be read."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Any, Callable[[], None]]] = deque()
        self._stream: Any = None

    def put(self, write: Callable[[], None], device: torch.device) -> None:
        """Keep `write`, which reads tensors of `device` as they are now."""
        ready = None
        if device.type == "cuda":
            ready = torch.cuda.Event()
            ready.record()
        self._waiting.append((ready, write))

    def drain(self) -> None:
        """Write what the device has passed, and wait for nothing."""
        self._write(lambda event: bool(event.query()))

    def flush(self) -> None:
        """Wait for the device and write all that is left."""
        self._write(lambda event: event.synchronize() is None)

    def _write(self, is_ready: Callable[[Any], bool]) -> None:
        while self._waiting:
            ready, write = self._waiting[0]
            if ready is not None and not is_ready(ready):
                return
            self._waiting.popleft()
            if ready is None:
                write()
                continue
            if self._stream is None:
                self._stream = torch.cuda.Stream()
            # Reading waits for its stream, and the engine's own has more work by now.
            with torch.cuda.stream(self._stream):
                write()
