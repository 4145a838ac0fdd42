"""Expected cost of a cell on this host: from earlier captures, else from the model. Pure."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..plan.cell import Cell
from ..plan.cost import expected_bytes, modelled_seconds
from .devices import DevicePool


@dataclass(frozen=True)
class Expected:
    """Seconds that a cell will take, and where the figure is from: `record` or `model`."""

    seconds: float
    source: str


def expected_seconds(cell: Cell, manifests: Iterable[Mapping[str, Any]] = ()) -> Expected:
    """Seconds that a cell will hold its devices, its server's imports left out.

    `manifests` are those of earlier captures. The median over those of the same variant, model,
    questions and shape speaks first, then over those of other variants, then the model.
    """
    alike = [
        known for known in manifests if known.get("status") != "blocked" and _alike(cell, known)
    ]
    same = [known for known in alike if known["cell"]["variant"] == cell.variant]
    taken = [_busy(known["seconds"]) for known in same or alike]
    if taken:
        return Expected(statistics.median(taken), "record")
    return Expected(modelled_seconds(cell), "model")


def devices_needed(cell: Cell, pool: DevicePool) -> int:
    """Number of devices of a pool that a cell takes."""
    return pool.needed(cell.pp, cell.tp, expected_bytes(cell))


def _alike(cell: Cell, manifest: Mapping[str, Any]) -> bool:
    """Whether an earlier cell asks as much of the same machine; its tree may differ."""
    earlier = manifest.get("cell", {})
    asked, wanted = earlier.get("gsm8k") or {}, cell.gsm8k
    return all(
        earlier.get(name) == getattr(cell, name)
        for name in ("model_digest", "pp", "tp", "device", "profile", "mode", "executor", "host")
    ) and (asked.get("digest"), asked.get("limit")) == (
        (wanted.digest, wanted.limit) if wanted else (None, None)
    )


def _busy(seconds: Mapping[str, float]) -> float:
    return float(seconds["total"]) - float(seconds.get("start", 0.0))
