"""The schedule in which cells run on the devices of this host. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..plan.cell import Cell
from ..plan.hosts import KINDS
from .devices import DevicePool
from .expect import Expected, devices_needed, expected_seconds
from .manifest import Manifest
from .schedule import Job, ScheduledJob, lower_bound, makespan, schedule, simulate


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
