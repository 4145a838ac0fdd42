"""What the layers of a step gave, fingerprinted together: a few operations for all, not for each.

An operation on a small tensor costs its launch, and a copy to the host its round trip; a decode
step of a model in eager mode consists of little else.
"""

from itertools import groupby
from typing import Any

import torch

from .digest import row_digests, row_norms, row_sketches

# Elements that are kept until they are fingerprinted, beyond the layer that exceeds them.
_KEPT_ELEMENTS = 1 << 22

# `indices`, the layers of a group, and of each kind of fingerprint a tensor [layers, rows, ...].
Group = dict[str, Any]


class LayerPrints:
    """Takes the output of each layer of one step of `rows` rows, in the order in which they run."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._kept: list[tuple[int, list[torch.Tensor]]] = []
        self._elements = 0
        self._groups: list[Group] = []

    def add(self, index: int, output: Any) -> None:
        """Keep the output of layer `index` as it is now: what runs later may overwrite it."""
        parts = output if isinstance(output, tuple | list) else (output,)
        kept = [
            part[: self._rows].reshape(self._rows, -1).clone()
            for part in parts
            if isinstance(part, torch.Tensor) and part.dim() > 0 and part.shape[0] >= self._rows
        ]
        if not kept:
            return
        self._kept.append((index, kept))
        self._elements += sum(part.numel() for part in kept)
        if self._elements > _KEPT_ELEMENTS:
            self._reduce()

    def take(self) -> list[Group]:
        """Return the fingerprints of all layers, still on their device."""
        self._reduce()
        return self._groups

    def _reduce(self) -> None:
        kept, self._kept, self._elements = self._kept, [], 0
        for _, layers in groupby(kept, lambda one: [(part.shape, part.dtype) for part in one[1]]):
            indices, outputs = zip(*layers, strict=True)
            parts = [torch.cat(same) for same in zip(*outputs, strict=True)]
            count = len(parts[0])
            digest = row_digests(parts[0], count)
            for position, part in enumerate(parts[1:], start=1):
                digest = digest + row_digests(part, count) * (2 * position + 1)
            each = (len(indices), self._rows)
            self._groups.append(
                {
                    "indices": list(indices),
                    "digest": digest.unflatten(0, each),
                    "norm": row_norms(parts[0], count).unflatten(0, each),
                    "sketch": row_sketches(parts[0], count).unflatten(0, each),
                }
            )
