"""The schedule in which cells run on the devices of this host, by what each is expected to cost.

Pure: earlier captures tell the seconds of a cell, else the model does.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..plan.cell import Cell
from ..plan.cost import expected_bytes, modelled_seconds
from ..plan.hosts import KINDS
from .devices import DevicePool
from .manifest import Manifest, Status
from .schedule import Job, ScheduledJob, lower_bound, makespan, schedule, simulate


@dataclass(frozen=True)
class Expected:
    """Seconds that a cell will take, and where the figure is from: `record` or `model`."""

    seconds: float
    source: str


@dataclass(frozen=True)
class CellPlan:
    """The schedule of cells, by key, and where their seconds are from; `stored` need not run."""

    jobs: tuple[ScheduledJob, ...]
    bound: float
    cells: dict[str, Cell]
    expected: dict[str, Expected]
    devices: int
    engines: int
    stored: tuple[Cell, ...] = ()

    @property
    def makespan(self) -> float:
        """Seconds from the first start to the last end, as expected."""
        return makespan(self.jobs)


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


def plan_cells(
    cells: Sequence[Cell],
    manifests: Iterable[Manifest],
    pool: DevicePool,
    engines: int,
) -> CellPlan:
    """Schedule cells with at most `engines` at once.

    The first cell of each variant tree waits for its fork server to import vLLM, and is longer by
    that. `manifests` are those of earlier captures.

    Raises:
        ValueError: if a cell needs more devices than the pool has.
    """
    known, devices = list(manifests), len(pool.ids)
    expected = {cell.key: expected_seconds(cell, known) for cell in cells}
    jobs = [Job(cell.key, devices_needed(cell, pool), expected[cell.key].seconds) for cell in cells]
    by_key = {cell.key: cell for cell in cells}
    order, imported = [], set()
    for job in (scheduled.job for scheduled in schedule(jobs, devices, engines)):
        cell = by_key[job.name]
        seconds = 0.0 if cell.tree in imported else KINDS[cell.device].rates.imports
        imported.add(cell.tree)
        order.append(replace(job, seconds=job.seconds + seconds))
    return CellPlan(
        simulate(order, devices, engines),
        lower_bound(order, devices, engines),
        by_key,
        expected,
        devices,
        engines,
    )
