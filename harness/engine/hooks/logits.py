"""Logits of probe rows on disk: raw float32 rows in `logits.f32`, their index in `logits.jsonl`.

The last stage's tensor-parallel rank 0 writes them; its other ranks compute them along with it.
"""

from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import torch

from ..names import SENSITIVITY
from .effects import EffectWriter
from .outbox import Outbox
from .step import Row, RowSpan

# Logits computed at a time for prompts: 64 MiB in float32, as rows of any vocabulary.
_CHUNK_LOGITS = 1 << 24

# A row, and whether the engine samples from it.
_Entry = tuple[RowSpan, int, str]


class LogitWriter:
    """Chooses the rows of logits to keep and writes them once they can be read.

    `writes` is false on tensor-parallel ranks other than 0.
    """

    def __init__(self, folder: Path, outbox: Outbox) -> None:
        self.writes = True
        self._folder = folder
        self._outbox = outbox
        self._effects = EffectWriter(folder)
        self._rows: IO[bytes] | None = None
        self._index: IO[bytes] | None = None
        self._row_count = 0

    def add_sampled(self, rows: list[Row], sampled: torch.Tensor) -> None:
        """Keep the logits that the engine samples from, in batch order.

        The last row of a chunk is sampled too, and thrown away: it is kept if its position is. So
        are rows behind a drafted token; where it was rejected, a later row of the same position
        takes their place.
        """
        if rows[0][0].change.startswith(SENSITIVITY):
            self._effects.add(rows, sampled)
            return
        vocab = sampled.shape[-1]
        kept = [row for row, (span, position) in enumerate(rows) if span.keeps(position, vocab)]
        entries = [(*rows[row], "sampled") for row in kept]
        self._put(entries, _rows_of(sampled, kept) if len(kept) < len(rows) else sampled)

    def add_prompts(
        self,
        spans: tuple[RowSpan, ...],
        sampled: list[Row],
        hidden: torch.Tensor,
        compute: Any,
        vocab: int,
    ) -> None:
        """Compute and keep the logits of scheduled rows that the engine does not sample from.

        `sampled` are those that it does, `hidden` [rows, width] are the model's outputs for all
        rows of the step; `compute` turns some of them into logits, or into None on ranks that do
        not gather them.
        """
        if spans[0].change.startswith(SENSITIVITY):
            return
        known = set(sampled)
        entries: list[_Entry] = []
        rows: list[int] = []
        scheduled = ((span, position) for span in spans for position in span.positions)
        for row, (span, position) in enumerate(scheduled):
            if (span, position) not in known and span.keeps(position, vocab):
                entries.append((span, position, "prompt"))
                rows.append(row)
        at_once = max(1, _CHUNK_LOGITS // vocab)
        for start in range(0, len(rows), at_once):
            chunk = slice(start, start + at_once)
            logits = compute(_rows_of(hidden, rows[chunk]))
            if logits is not None:
                self._put(entries[chunk], logits)

    def _put(self, entries: list[_Entry], logits: torch.Tensor) -> None:
        if not self.writes or not entries:
            return
        # Widening to float32 is exact for bfloat16 and float16; on the device it is a copy, which
        # nothing overwrites until it is read.
        kept = logits.detach().float() if logits.dtype != torch.float32 else logits.detach().clone()
        self._outbox.put(lambda: self._write(entries, kept), kept.device)

    def _write(self, entries: list[_Entry], logits: torch.Tensor) -> None:
        if self._rows is None or self._index is None:
            self._rows = (self._folder / "logits.f32").open("ab")
            self._index = (self._folder / "logits.jsonl").open("ab")
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


def _rows_of(tensor: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Copy ascending `rows`, maybe none, run by run: indexing by a list waits for the device."""
    if not rows:  # of a chunk whose last row is not kept, say
        return tensor[:0].clone()
    runs = np.split(np.array(rows), np.flatnonzero(np.diff(rows) != 1) + 1)
    return torch.cat([tensor[run[0] : run[-1] + 1] for run in runs])
