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
class _Kept:
    """A copy [rows, width] of a tensor; with `far` it is also asked how large it is and how far."""

    name: str
    copy: torch.Tensor
    far: bool


@dataclass(frozen=True)
class _Group:
    """Fingerprints of the tensors named `of`: for each kind one tensor [names, rows, ...]."""

    of: list[str]
    prints: dict[str, torch.Tensor]


class Fingerprints:
    """Takes tensors of one step of `rows` rows, as each is when it is added."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._kept: list[_Kept] = []
        self._elements = 0
        self._groups: list[_Group] = []

    def add(self, name: str, value: Any, *, far: bool = False) -> None:
        """Keep `value`, a tensor or several side by side; what runs later may overwrite it.

        What has no row for each token leaves nothing. A row's digest is of its exact bits; with
        `far` its norm and its sketch are taken too.
        """
        parts = [
            part[: self._rows].reshape(self._rows, -1)
            for part in (value if isinstance(value, tuple | list) else (value,))
            if isinstance(part, torch.Tensor) and part.dim() > 0 and part.shape[0] >= self._rows
        ]
        if not parts:
            return
        # Parts of unlike dtypes are widened, which is exact.
        copy = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0].clone()
        self._kept.append(_Kept(name, copy, far))
        self._elements += copy.numel()
        if self._elements > _KEPT_ELEMENTS:
            self._reduce()

    def take(self) -> "Taken":
        """Return the fingerprints of all that was added, still on their device."""
        self._reduce()
        parts = [
            value.view(torch.uint8).flatten()
            for group in self._groups
            for value in group.prints.values()
        ]
        return Taken(self._groups, torch.cat(parts) if parts else None)

    def _reduce(self) -> None:
        alike: dict[Any, list[_Kept]] = {}
        for one in self._kept:
            alike.setdefault((one.copy.shape[1], one.copy.dtype), []).append(one)
        self._kept, self._elements = [], 0
        for kept in alike.values():
            kept.sort(key=lambda one: not one.far)
            far = sum(one.far for one in kept)
            rows = torch.cat([one.copy for one in kept])
            prints = {"digest": row_digests(rows, len(rows)).view(-1, self._rows)}
            if far:
                first = far * self._rows
                prints["norm"] = row_norms(rows, first).view(far, -1)
                prints["sketch"] = row_sketches(rows, first).view(far, self._rows, -1)
            self._groups.append(_Group([one.name for one in kept], prints))


@dataclass(frozen=True)
class Taken:
    """Fingerprints on their device, all in one piece: bringing them over is one copy."""

    groups: list[_Group]
    content: torch.Tensor | None

    def on_host(self) -> list[dict[str, Any]]:
        """Wait for the copy and return of each group the names, and its arrays packed."""
        if self.content is None:
            return []
        content, at = self.content.cpu().numpy(), 0
        found = []
        for group in self.groups:
            arrays = {}
            for kind, value in group.prints.items():
                dtype = str(value.dtype).removeprefix("torch.")
                piece = np.frombuffer(content, dtype, value.numel(), at)
                arrays[kind] = packed(piece.reshape(value.shape))
                at += value.nbytes
            found.append({"of": group.of, **arrays})
        return found
