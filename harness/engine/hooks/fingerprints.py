"""The tensors of a step, fingerprinted together: a few operations for all, not for each.

An operation on a small tensor costs its launch, and a copy to the host its round trip; a decode
step of a model in eager mode consists of little else.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..packed import packed
from .digest import row_digests, row_norms, row_sketches

# Elements that are kept until they are fingerprinted, beyond the tensor that exceeds them.
_KEPT_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class _TensorCopy:
    """A copy [rows, width] of a tensor; `with_norms` asks for its norms and sketches too."""

    name: str
    rows: torch.Tensor
    with_norms: bool


@dataclass(frozen=True)
class _Group:
    """Fingerprints of the tensors named `of`: for each kind one tensor [names, rows, ...]."""

    of: list[str]
    by_kind: dict[str, torch.Tensor]


@dataclass(frozen=True)
class FingerprintBatch:
    """The fingerprints of a step on their device, in one piece: bringing them over is one copy."""

    groups: list[_Group]
    content: torch.Tensor | None

    def on_host(self) -> list[dict[str, Any]]:
        """Wait for the copy and return the names of each group with its arrays, packed."""
        if self.content is None:
            return []
        content, at = self.content.cpu().numpy(), 0
        written = []
        for group in self.groups:
            arrays = {}
            for kind, value in group.by_kind.items():
                dtype = str(value.dtype).removeprefix("torch.")
                piece = np.frombuffer(content, dtype, value.numel(), at)
                arrays[kind] = packed(piece.reshape(value.shape))
                at += value.nbytes
            written.append({"of": group.of, **arrays})
        return written


class FingerprintCollector:
    """Takes tensors of one step of `rows` rows, as each is when it is added."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._copies: list[_TensorCopy] = []
        self._elements = 0
        self._groups: list[_Group] = []

    def add(self, name: str, value: Any, *, with_norms: bool = False) -> None:
        """Copy `value`, a tensor or several side by side; later code may overwrite it.

        A value that has no row for each token leaves nothing; those of a batch of one, as the
        Transformers backend computes, have their rows second. A row's digest is of its exact bits;
        its norm and its sketch are taken `with_norms` alone.
        """
        tensors = (
            part[0] if part.dim() > 2 and part.shape[0] == 1 < self._rows else part
            for part in (value if isinstance(value, tuple | list) else (value,))
            if isinstance(part, torch.Tensor)
        )
        parts = [
            part[: self._rows].reshape(self._rows, -1)
            for part in tensors
            if part.dim() > 0 and part.shape[0] >= self._rows
        ]
        if not parts:
            return
        # Parts of unlike dtypes are widened, which is exact.
        rows = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0].clone()
        self._copies.append(_TensorCopy(name, rows, with_norms))
        self._elements += rows.numel()
        if self._elements > _KEPT_ELEMENTS:
            self._reduce()

    def collect(self) -> FingerprintBatch:
        """Fingerprint all that was added; nothing waits for the device."""
        self._reduce()
        parts = [
            value.view(torch.uint8).flatten()
            for group in self._groups
            for value in group.by_kind.values()
        ]
        return FingerprintBatch(self._groups, torch.cat(parts) if parts else None)

    def _reduce(self) -> None:
        alike: dict[Any, list[_TensorCopy]] = {}
        for copy in self._copies:
            alike.setdefault((copy.rows.shape[1], copy.rows.dtype), []).append(copy)
        self._copies, self._elements = [], 0
        for copies in alike.values():
            copies.sort(key=lambda copy: not copy.with_norms)
            with_norms = sum(copy.with_norms for copy in copies)
            rows = torch.cat([copy.rows for copy in copies])
            by_kind = {"digest": row_digests(rows, len(rows)).view(-1, self._rows)}
            if with_norms:
                first = with_norms * self._rows
                by_kind["norm"] = row_norms(rows, first).view(with_norms, -1)
                by_kind["sketch"] = row_sketches(rows, first).view(with_norms, self._rows, -1)
            self._groups.append(_Group([copy.name for copy in copies], by_kind))
