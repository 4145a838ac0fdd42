"""From cells to the schedule in which they run. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..plan.cell import Cell
from ..plan.cost import import_seconds
from .devices import DevicePool
from .expect import Expected, devices_needed, expected_seconds
from .manifest import Manifest
from .schedule import Job, Plan, lower_bound, plan, simulate


@dataclass(frozen=True)
class CellPlan:
    """The schedule of cells, by key, and where their seconds are from; `stored` need not run."""

    plan: Plan
    cells: dict[str, Cell]
    expected: dict[str, Expected]
    devices: int
    engines: int
    stored: tuple[Cell, ...] = ()


def plan_cells(
    cells: Sequence[Cell],
    manifests: Iterable[Manifest],
    pool: DevicePool,
    engines: int,
) -> CellPlan:
    """Return the schedule of cells with at most `engines` at once.

    The first cell of each variant tree waits for its fork server to import vLLM, and is longer by
    that. `manifests` are those of earlier captures.

    Raises:
        ValueError: if a cell needs more devices than the pool has.
    """
    known = list(manifests)
    expected = {cell.key: expected_seconds(cell, known) for cell in cells}
    jobs = [Job(cell.key, devices_needed(cell, pool), expected[cell.key].seconds) for cell in cells]
    by_key = {cell.key: cell for cell in cells}
    order, seen = [], set()
    for job in plan(jobs, len(pool.ids), engines).order:
        cell = by_key[job.name]
        if cell.tree not in seen:
            seen.add(cell.tree)
            job = replace(job, seconds=job.seconds + import_seconds(cell.device))  # noqa: PLW2901
        order.append(job)
    devices = len(pool.ids)
    schedule = Plan(simulate(order, devices, engines), lower_bound(order, devices, engines))
    return CellPlan(schedule, by_key, expected, devices, engines)
