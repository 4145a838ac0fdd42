"""What one rank of a running engine writes down. Knows no vLLM class: the runner adapter feeds it.

Files in the capture folder, one writer each:
  rank<R>.jsonl     events of rank R: heartbeat, declared keys, steps, dummy runs
  failure.<R>.json  the first exception that rank R raised
  logits.f32/.jsonl raw float32 rows and their index, written by the last stage's
                    tensor-parallel rank 0; every rank computes them, together
"""

import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import msgspec
import torch

from ..names import REQUEST_MARK, SENSITIVITY
from .effects import Effects
from .extent import Watched, used_ranges, watch
from .fingerprints import Fingerprints
from .outbox import Outbox

# Rows of logits computed at a time for whole prompts: bounds memory at large vocabularies.
_LOGIT_CHUNK_ROWS = 256
# Logits that are kept of one prompt: 32 rows of a vocabulary of 262144, 32 MiB.
_PROMPT_LOGITS = 1 << 23


@dataclass(frozen=True)
class RowSpan:
    """The rows that one request occupies in a step: `count` rows from absolute `start`.

    `name` is empty for a question, which is run under a `change` and not traced.
    """

    name: str
    start: int
    count: int
    prompt_length: int
    forced: tuple[int, ...]
    change: str = ""

    @property
    def last(self) -> int:
        """Return the absolute position of the last row."""
        return self.start + self.count - 1

    @classmethod
    def of_request(
        cls, sampling_params: Any, *, start: int, count: int, prompt_length: int
    ) -> "RowSpan | None":
        """Return the span of a request in a step; None if it has no mark or is not scheduled."""
        extra = sampling_params.extra_args if sampling_params else None
        mark = (extra or {}).get(REQUEST_MARK)
        if mark is None or count == 0:
            return None
        return cls(
            mark.get("request", ""),
            start,
            count,
            prompt_length,
            tuple(mark.get("forced", ())),
            mark.get("change", ""),
        )


@dataclass
class Step:
    """One traced forward pass on this rank; `rows` is the number of scheduled tokens."""

    spans: tuple[RowSpan, ...]
    sides: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    watched: dict[str, Watched] = field(default_factory=dict)

    @cached_property
    def rows(self) -> int:
        """Return the number of scheduled tokens."""
        return sum(span.count for span in self.spans)

    @cached_property
    def prints(self) -> Fingerprints:
        """Return the fingerprints of what crossed a boundary and of the layers that have run."""
        return Fingerprints(self.rows)


@lru_cache(maxsize=256)
def kept_positions(prompt_length: int, vocab: int) -> frozenset[int]:
    """Return where a prompt keeps its logits: everywhere, or evenly spread, its ends included.

    A full-size vocabulary takes 1 MB a row; what a prompt keeps is bounded, and layers are
    fingerprinted row by row anyway. Positions are those of the whole prompt, however it is cut
    into chunks: another PP size may cut it elsewhere.
    """
    limit = max(2, _PROMPT_LOGITS // vocab)
    if prompt_length <= limit:
        return frozenset(range(prompt_length))
    return frozenset(index * (prompt_length - 1) // (limit - 1) for index in range(limit))


def describe(value: Any) -> dict[str, Any] | None:
    """Return shape, dtype and layout of a boundary value."""
    if value is None:
        return None
    if not isinstance(value, torch.Tensor):
        return {"type": type(value).__name__}
    return {
        "shape": list(value.shape),
        "dtype": str(value.dtype).removeprefix("torch."),
        "contiguous": value.is_contiguous(),
    }


def _rows_of(tensor: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Return a copy of ascending `rows`, maybe none, run by run: indices wait for the device."""
    if not rows:  # of a chunk whose last row is not kept, say
        return tensor[:0].clone()
    runs: list[list[int]] = []
    for row in rows:
        if runs and runs[-1][1] == row:
            runs[-1][1] = row + 1
        else:
            runs.append([row, row + 1])
    return torch.cat([tensor[start:stop] for start, stop in runs])


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
        self._tp_rank = 0
        self._steps = 0
        self._events: IO[bytes] | None = None
        self._rows: IO[bytes] | None = None
        self._index: IO[bytes] | None = None
        self._row_count = 0
        self._watched_under: set[str] = set()
        self._effects = Effects(folder)
        self._outbox = Outbox()

    # ---- life of a rank -------------------------------------------------------------------

    def start(self, rank: int, *, tp_rank: int, device: torch.device, **facts: Any) -> None:
        """Write the heartbeat: this rank is alive and traced."""
        self.rank, self._tp_rank, self.device = rank, tp_rank, device
        self._events = (self.folder / f"rank{rank}.jsonl").open("ab")
        self.write("heartbeat", pid=os.getpid(), tracing=self.tracing, tp_rank=tp_rank, **facts)

    def write(self, kind: str, **content: Any) -> None:
        """Append one event and flush it, so that a crash leaves what came before."""
        if self._events is not None:
            self._events.write(msgspec.json.encode({"kind": kind, **content}) + b"\n")
            self._events.flush()

    def flush(self) -> None:
        """Write what still waits for the device."""
        self.settle()
        self._outbox.flush()

    @contextmanager
    def failures(self, rank: int, phase: str) -> Iterator[None]:
        """Write this rank's first exception, with its innermost vLLM frame, and let it pass."""
        try:
            yield
        except Exception as error:
            with suppress(Exception):  # the device may be what failed
                self.end_step()
                self.flush()
            path = self.folder / f"failure.{rank}.json"
            if not path.exists():
                frames = traceback.extract_tb(error.__traceback__)
                inside = [f for f in frames if "/vllm/" in f.filename] or frames
                where = inside[-1]
                path.write_text(
                    json.dumps(
                        {
                            "rank": rank,
                            "phase": phase,
                            "time": time.time(),
                            "error": f"{type(error).__name__}: {error}",
                            "place": f"vllm/{where.filename.rpartition('/vllm/')[2]}:{where.lineno}"
                            if "/vllm/" in where.filename
                            else f"{where.filename}:{where.lineno}",
                            "traceback": traceback.format_exc(),
                        }
                    ),
                    encoding="utf-8",
                )
            raise

    # ---- one step -------------------------------------------------------------------------

    def begin_step(self, spans: tuple[RowSpan, ...]) -> None:
        """Start tracing a forward pass whose rows all belong to probes."""
        tells = self.tracing and not spans[0].change.startswith(SENSITIVITY)
        self.step = Step(spans) if tells else None

    def end_step(self) -> None:
        """Stop tracing; what the step left behind is kept until `settle`."""
        self._ended, self.step = self.step, None

    def settle(self) -> None:
        """Fingerprint what the step that ended left behind, and write what can be read by now.

        To be called when no other stage waits for this one.
        """
        step, self._ended = self._ended, None
        if step is not None:
            self._fingerprint(step)
        self._outbox.drain()

    def _fingerprint(self, step: Step) -> None:
        prints = step.prints.take()
        content = {
            "index": self._steps,
            "spans": [[span.name, span.start, span.count] for span in step.spans],
            "change": step.spans[0].change,
            "reads": step.reads,
            "used": {key: used_ranges(view) for key, view in step.watched.items()},
            **step.sides,
        }
        self._outbox.put(
            lambda: self.write("step", **content, prints=prints.on_host()), self.device
        )
        self._steps += 1

    def preload(self, tensors: dict[str, Any]) -> None:
        """Fingerprint `tensors` once for nothing: a GPU loads a kernel when it is first asked for.

        Else the first step would be held up by that, and its neighbours with it.
        """
        prints = Fingerprints(1)
        for key, value in tensors.items():
            prints.add(key, value, far=True)
        prints.take()

    @contextmanager
    def dummy_run(self) -> Iterator[None]:
        """Mark a profiling or warm-up run: only keys and misuse are noted, never content."""
        self._dummy = True
        try:
            yield
        finally:
            self._dummy = False

    @property
    def watching(self) -> bool:
        """Whether reads and returned keys are of interest now."""
        return self.tracing and (self._dummy or self.step is not None)

    def note(self, kind: str, key: str, place: str) -> None:
        """Note what the model's forward did with the tensors it was given."""
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
                    self.step.prints.add(f"{side}/{key}", value)
        elif self._dummy:
            self.write("dummy", side=side, keys={k: describe(v) for k, v in tensors.items()})

    def watched(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Return `tensors` for the model to read; watched for what it uses in the first step.

        Under each change, its first step is watched too.
        """
        content = dict.copy(tensors)
        if self.step is not None and self.step.spans[0].change not in self._watched_under:
            self._watched_under.add(self.step.spans[0].change)
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
            self.step.prints.add(f"layer/{index}", output, far=True)

    # ---- logits ---------------------------------------------------------------------------

    def logits(self, spans: tuple[RowSpan, ...], sampled: torch.Tensor) -> None:
        """Append the logits that the engine samples from: one row per request, in batch order.

        The last row of a chunk is sampled too, and thrown away: it is kept if its position is.
        """
        if spans[0].change.startswith(SENSITIVITY):
            self._effects.add(spans, sampled)
            return
        vocab = sampled.shape[-1]
        kept = [
            row
            for row, span in enumerate(spans)
            if span.last >= span.prompt_length - 1
            or span.last in kept_positions(span.prompt_length, vocab)
        ]
        entries = [(spans[row], spans[row].last, "sampled") for row in kept]
        self._append(entries, _rows_of(sampled, kept) if len(kept) < len(spans) else sampled)

    def prompt_logits(
        self, spans: tuple[RowSpan, ...], hidden: torch.Tensor, compute: Any, vocab: int
    ) -> None:
        """Compute and append the logits of scheduled rows that the engine does not sample."""
        entries: list[tuple[RowSpan, int, str]] = []
        rows: list[int] = []
        offset = 0
        for span in spans:
            kept = kept_positions(span.prompt_length, vocab)
            for position in range(span.start, span.last):
                if position in kept:
                    entries.append((span, position, "prompt"))
                    rows.append(offset + position - span.start)
            offset += span.count
        for start in range(0, len(rows), _LOGIT_CHUNK_ROWS):
            chunk = rows[start : start + _LOGIT_CHUNK_ROWS]
            logits = compute(_rows_of(hidden, chunk))
            if logits is not None:  # None on tensor-parallel ranks that do not gather
                self._append(entries[start : start + _LOGIT_CHUNK_ROWS], logits)

    def _append(self, entries: list[tuple[RowSpan, int, str]], logits: torch.Tensor) -> None:
        if self._tp_rank or not entries:
            return
        # Widening to float32 is exact for bfloat16 and float16; on the device it is a copy, which
        # nothing overwrites until it is read.
        kept = logits.detach().float() if logits.dtype != torch.float32 else logits.detach().clone()
        self._outbox.put(lambda: self._write_rows(entries, kept), kept.device)

    def _write_rows(self, entries: list[tuple[RowSpan, int, str]], logits: torch.Tensor) -> None:
        if self._rows is None or self._index is None:
            self._rows = (self.folder / "logits.f32").open("ab")
            self._index = (self.folder / "logits.jsonl").open("ab")
        self._rows.write(logits.cpu().contiguous().numpy().tobytes())
        for span, position, kind in entries:
            entry = {
                "row": self._row_count,
                "request": span.name,
                "change": span.change,
                "position": position,
                "kind": kind,
                "vocab": logits.shape[-1],
            }
            self._index.write(msgspec.json.encode(entry) + b"\n")
            self._row_count += 1
        self._rows.flush()
        self._index.flush()


def with_dummy_run(tracer: Tracer, method: Any) -> Any:
    """Return a runner's `_dummy_run` that marks what happens in it as profiling or warm-up."""

    def dummy_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with tracer.dummy_run():
            return method(self, *args, **kwargs)

    return dummy_run
