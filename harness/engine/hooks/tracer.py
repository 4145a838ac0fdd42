"""The record of one rank of a running engine. Knows no vLLM class: the runner adapter feeds it.

Files in the capture folder, one writer each:
  rank<R>.jsonl     events of rank R: heartbeat, declared keys, steps, dummy runs
  logits.f32/.jsonl logits of probe rows (logits.py)
  failure.<R>.json  the first exception of rank R (harness/engine/failures.py)
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import torch

from ..failures import RankFailure
from ..names import SENSITIVITY
from .extent import used_ranges, watch
from .fingerprints import FingerprintCollector
from .logits import LogitWriter
from .outbox import Outbox
from .step import RowSpan, Step


def describe(value: Any) -> dict[str, Any] | None:
    """Describe shape, dtype and layout of a boundary value."""
    if value is None:
        return None
    if not isinstance(value, torch.Tensor):
        return {"type": type(value).__name__}
    return {
        "shape": list(value.shape),
        "dtype": str(value.dtype).removeprefix("torch."),
        "contiguous": value.is_contiguous(),
    }


class Tracer:
    """The recorder of one process. Inactive between probe steps, so that GSM8K runs untouched."""

    def __init__(self, folder: Path, *, tracing: bool) -> None:
        self.folder = folder
        self.tracing = tracing
        self.rank = -1
        self.device = torch.device("cpu")
        self.step: Step | None = None
        self._ended: Step | None = None
        self._dummy = False
        self._steps = 0
        self._events: IO[bytes] | None = None
        self._watched_under: set[str] = set()
        self._outbox = Outbox()
        self.logits = LogitWriter(folder, self._outbox)

    # ---- life of a rank -------------------------------------------------------------------

    def start(self, rank: int, *, tp_rank: int, device: torch.device, **facts: Any) -> None:
        """Write the heartbeat: this rank is alive and traced."""
        self.rank, self.device = rank, device
        self.logits.writes = tp_rank == 0
        self._events = (self.folder / f"rank{rank}.jsonl").open("ab")
        self.write("heartbeat", pid=os.getpid(), tracing=self.tracing, tp_rank=tp_rank, **facts)

    def write(self, kind: str, **content: Any) -> None:
        """Append one event and flush it, so that a crash leaves the events before it."""
        if self._events is not None:
            self._events.write(msgspec.json.encode({"kind": kind, **content}) + b"\n")
            self._events.flush()

    def flush(self) -> None:
        """Write all that still waits for the device."""
        self.settle()
        self._outbox.flush()

    def fail(self, rank: int, phase: str, error: Exception) -> None:
        """Write an exception of this rank, and before it all that the step has left by now."""
        with suppress(Exception):  # the device may be what failed
            self.end_step()
            self.flush()
        RankFailure.of(rank, phase, error).write(self.folder)

    # ---- one step -------------------------------------------------------------------------

    def begin_step(self, spans: tuple[RowSpan, ...]) -> None:
        """Start tracing a forward pass whose rows all belong to probes."""
        traces = self.tracing and not spans[0].change.startswith(SENSITIVITY)
        self.step = Step(spans) if traces else None

    def end_step(self) -> None:
        """Stop tracing; the step is kept until `settle`."""
        self._ended, self.step = self.step, None

    def settle(self) -> None:
        """Fingerprint the tensors of the step that ended, and write all that can be read by now.

        To be called when no other stage waits for this one.
        """
        step, self._ended = self._ended, None
        if step is not None:
            self._fingerprint(step)
        self._outbox.drain()

    def _fingerprint(self, step: Step) -> None:
        batch = step.fingerprints.collect()
        content = {
            "index": self._steps,
            "spans": [[span.name, span.start, span.count] for span in step.spans],
            "change": step.change,
            "reads": step.reads,
            "used": {key: used_ranges(view) for key, view in step.watched.items()},
            **step.sides,
        }
        self._outbox.put(lambda: self.write("step", **content, prints=batch.on_host()), self.device)
        self._steps += 1

    def preload(self, tensors: dict[str, Any]) -> None:
        """Fingerprint `tensors` once for nothing: a GPU loads a kernel when it is first asked for.

        Else the first step would be held up by that, and its neighbours with it.
        """
        collector = FingerprintCollector(1)
        for key, value in tensors.items():
            collector.add(key, value, with_norms=True)
        collector.collect()

    def dummy_run(self, method: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a runner's profiling or warm-up: only keys and misuse are noted, never content."""
        self._dummy = True
        try:
            return method(*args, **kwargs)
        finally:
            self._dummy = False

    @property
    def watching(self) -> bool:
        """Whether reads and returned keys are of interest now."""
        return self.tracing and (self._dummy or self.step is not None)

    def note(self, kind: str, key: str, place: str) -> None:
        """Note how the model's forward used the tensors that it was given."""
        if kind == "read":
            if self.step is not None:
                self.step.reads.setdefault(key, place)
        else:  # written in its turn: the line of its step follows
            self._outbox.put(
                lambda: self.write("misuse", what=kind, key=key, place=place), self.device
            )

    def boundary(self, side: str, tensors: dict[str, Any]) -> None:
        """Record `returned`, `sent`, `received` or `copied` tensors of this step, key by key."""
        if self.step is not None:
            if side not in self.step.sides:  # the inner model returns before its wrapper does
                self.step.sides[side] = {key: describe(value) for key, value in tensors.items()}
                for key, value in tensors.items():
                    self.step.fingerprints.add(f"{side}/{key}", value)
        elif self._dummy:
            self.write("dummy", side=side, keys={k: describe(v) for k, v in tensors.items()})

    def watched(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Return `tensors` for the model to read; their use is watched in the first step.

        Under each change, its first step is watched too.
        """
        content = dict.copy(tensors)
        if self.step is not None and self.step.change not in self._watched_under:
            self._watched_under.add(self.step.change)
            self.step.watched = {
                key: watch(value)
                for key, value in content.items()
                if isinstance(value, torch.Tensor) and value.dim() > 0
            }
            content.update(self.step.watched)
        return content

    def layer(self, index: int, output: Any) -> None:
        """Fingerprint the output of layer `index` in this step."""
        if self.step is not None:
            self.step.fingerprints.add(f"layer/{index}", output, with_norms=True)
