"""Expected cost of a cell on this host: from earlier captures, else from the model. Pure."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..plan.cell import Cell
from ..plan.cost import expected_bytes, modelled_seconds
from .devices import DevicePool
from .manifest import Manifest, Status


@dataclass(frozen=True)
class Expected:
    """Seconds that a cell will take, and where the figure is from: `record` or `model`."""

    seconds: float
    source: str


def expected_seconds(cell: Cell, manifests: Iterable[Manifest] = ()) -> Expected:
    """Seconds that a cell will hold its devices, its server's imports left out.

    `manifests` are those of earlier captures. The median over those of the same variant, model,
    questions and shape speaks first, then over those of other variants, then the model.
    """
    alike = [
        known
        for known in manifests
        if known.status is not Status.BLOCKED and _load_of(known.cell) == _load_of(cell)
    ]
    same = [known for known in alike if known.cell.variant == cell.variant]
    taken = [_busy(known.seconds) for known in same or alike]
    if taken:
        return Expected(statistics.median(taken), "record")
    return Expected(modelled_seconds(cell), "model")


def devices_needed(cell: Cell, pool: DevicePool) -> int:
    """Number of devices of a pool that a cell takes."""
    return pool.needed(cell.pp, cell.tp, expected_bytes(cell))


def _load_of(cell: Cell) -> tuple[object, ...]:
    """What decides how long a cell takes; its tree hardly does."""
    questions = (cell.gsm8k.digest, cell.gsm8k.limit) if cell.gsm8k else None
    same = (cell.model_digest, cell.pp, cell.tp, cell.device, cell.profile, cell.mode)
    return *same, cell.executor, cell.host, questions


def _busy(seconds: Mapping[str, float]) -> float:
    return float(seconds["total"]) - float(seconds.get("start", 0.0))
