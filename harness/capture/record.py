"""A capture on disk, read back. Needs numpy, no torch: logits are exact float32."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Span:
    """`count` rows of one probe request, from absolute position `start`."""

    request: str
    start: int
    count: int

    @property
    def rows(self) -> Iterator[tuple[str, int]]:
        """Yield (request, position) of each row."""
        for offset in range(self.count):
            yield self.request, self.start + offset


@dataclass(frozen=True)
class StepTrace:
    """One forward pass on one rank: what crossed the boundary, what was read, layer fingerprints.

    Each of `returned`, `sent`, `received`, `copied` maps a key to its description (shape, dtype,
    contiguous, a 64-bit digest per row) or None; the mapping itself is None where nothing of the
    kind happened on this rank. `used` maps a key to the [start, stop) ranges of a row's elements
    that the forward used; only the first step is watched for it, None means not watched.
    """

    index: int
    spans: tuple[Span, ...]
    reads: dict[str, str]
    layers: dict[int, dict[str, list[Any]]]
    returned: dict[str, Any] | None = None
    sent: dict[str, Any] | None = None
    received: dict[str, Any] | None = None
    copied: dict[str, Any] | None = None
    used: dict[str, list[list[int]]] | None = None


@dataclass(frozen=True)
class RankTrace:
    """Everything that one rank wrote."""

    rank: int
    stage: int
    stages: int
    tp_rank: int
    tracing: bool
    runner: str
    declared: dict[str, Any] | None
    declared_error: str | None
    layers: tuple[int, ...]
    steps: tuple[StepTrace, ...]
    dummies: tuple[dict[str, Any], ...]
    misuses: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class LogitTable:
    """Logits [rows, vocabulary] (memory-mapped) and the row of each (request, position)."""

    values: npt.NDArray[np.float32]
    index: dict[tuple[str, int], int]


@dataclass(frozen=True)
class Capture:
    """The folder of one cell, whole. `status` is ok, failed (a cause is known) or blocked."""

    folder: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def status(self) -> str:
        """Return ok, failed or blocked."""
        return str(self.manifest["status"])

    @property
    def seconds(self) -> dict[str, float]:
        """Return the seconds that each phase took, and `total`."""
        return dict(self.manifest["seconds"])

    @property
    def failure(self) -> dict[str, Any] | None:
        """Return the root cause: error, phase, rank, place, traceback; None where status is ok."""
        failure: dict[str, Any] | None = self.manifest["failure"]
        return failure

    @cached_property
    def stages(self) -> dict[int, RankTrace]:
        """Return the trace of each pipeline stage (of its first tensor-parallel rank)."""
        found = (_read_rank(path) for path in sorted(self.folder.glob("rank*.jsonl")))
        return {trace.stage: trace for trace in found if trace is not None and trace.tp_rank == 0}

    @cached_property
    def logits(self) -> LogitTable:
        """Return the logits; an empty table where the engine produced none."""
        index_file = self.folder / "logits.jsonl"
        lines = _read_lines(index_file)
        if not lines:
            return LogitTable(np.zeros((0, 0), np.float32), {})
        shape = (len(lines), int(lines[0]["vocab"]))
        values = np.memmap(self.folder / "logits.f32", np.float32, mode="r", shape=shape)
        index = {(line["request"], line["position"]): line["row"] for line in lines}
        return LogitTable(values, index)

    @cached_property
    def answers(self) -> list[dict[str, Any]]:
        """Return the lines that lm-eval left, one per question, in order."""
        return _read_lines(self.folder / "gsm8k.jsonl")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a JSONL file; a line cut by a dying writer is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _read_rank(path: Path) -> RankTrace | None:
    events = _read_lines(path)
    first = {kind: event for event in reversed(events) if (kind := event["kind"])}
    heartbeat = first.get("heartbeat")
    if heartbeat is None:
        return None
    declared = first.get("declared", {})
    return RankTrace(
        rank=int(path.stem.removeprefix("rank")),
        stage=heartbeat["stage"],
        stages=heartbeat["stages"],
        tp_rank=heartbeat["tp_rank"],
        tracing=heartbeat["tracing"],
        runner=heartbeat["runner"],
        declared=declared.get("keys"),
        declared_error=declared.get("error"),
        layers=tuple(first.get("layers", {}).get("indices", ())),
        steps=tuple(_read_step(event) for event in events if event["kind"] == "step"),
        dummies=tuple(event for event in events if event["kind"] == "dummy"),
        misuses=tuple(event for event in events if event["kind"] == "misuse"),
    )


def _read_step(event: dict[str, Any]) -> StepTrace:
    return StepTrace(
        index=event["index"],
        spans=tuple(Span(*span) for span in event["spans"]),
        reads=event["reads"],
        layers={int(layer): value for layer, value in event["layers"].items()},
        returned=event.get("returned"),
        sent=event.get("sent"),
        received=event.get("received"),
        copied=event.get("copied"),
        used=event.get("used"),
    )
