"""Which cell starts next on which number of devices: pure, for the runner, `--pp-plan`, benchmarks.

Scheduling rigid parallel jobs: a cell takes `width` devices at once for a time that is known only
roughly. List scheduling with a reservation for the head of the list ("EASY" backfilling, Lifka,
The ANL/IBM SP scheduling system, 1995): a smaller cell may overtake the head only if that does not
delay it, so that a wide cell never starves.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

# Denominators of the dual feasible functions tried for the lower bound: enough for hosts of any
# size, since a width of less than 1/32 of the devices packs well anyway.
_DENOMINATORS = range(1, 33)


@dataclass(frozen=True)
class Job:
    """A cell as the scheduler sees it: `width` devices at once for `seconds`, as expected."""

    name: str
    width: int
    seconds: float


@dataclass(frozen=True)
class Placed:
    """A job with its time, in seconds after the first start."""

    job: Job
    start: float

    @property
    def end(self) -> float:
        """Return when the job is expected to end."""
        return self.start + self.job.seconds


@dataclass(frozen=True)
class Plan:
    """A whole schedule, in the order of starts."""

    placed: tuple[Placed, ...]
    bound: float

    @property
    def makespan(self) -> float:
        """Return the seconds from the first start to the last end."""
        return max((one.end for one in self.placed), default=0.0)

    @property
    def order(self) -> tuple[Job, ...]:
        """Return the jobs in the order in which they start."""
        return tuple(one.job for one in self.placed)


def next_start(
    waiting: Sequence[Job],
    free: int,
    running: Iterable[tuple[float, int]],
    now: float,
) -> int | None:
    """Return the index in `waiting` of the job to start now, None if all have to wait.

    `waiting` is in the order in which the jobs should start, `running` holds (expected end, width)
    of what runs. The head starts as soon as it fits. Until then another may start if by
    expectation it has ended when the head's devices are free, or leaves it enough of them.
    """
    if not waiting or free < 1:
        return None
    head = waiting[0]
    if head.width <= free:
        return 0
    there, begins = free, now
    for end, width in sorted(running):
        there += width
        begins = max(end, now)
        if there >= head.width:
            break
    spare = there - head.width
    for index, job in enumerate(waiting):
        if job.width <= free and (job.width <= spare or now + job.seconds <= begins):
            return index
    return None


def simulate(order: Sequence[Job], devices: int, engines: int | None = None) -> tuple[Placed, ...]:
    """Return when each job starts on `devices` devices if all take as long as expected.

    `engines` caps the jobs at once.

    Raises:
        ValueError: if a job is wider than the devices.
    """
    if any(job.width > devices for job in order):
        raise ValueError(f"a job is wider than {devices} devices")
    waiting, free, now = list(order), devices, 0.0
    running: list[tuple[float, int]] = []
    placed = []
    while waiting:
        capped = len(running) == engines
        index = None if capped else next_start(waiting, free, running, now)
        if index is None:
            now, width = heapq.heappop(running)
            free += width
            continue
        job = waiting.pop(index)
        placed.append(Placed(job, now))
        free -= job.width
        heapq.heappush(running, (now + job.seconds, job.width))
    return tuple(placed)


def lower_bound(jobs: Sequence[Job], devices: int, engines: int | None = None) -> float:
    """Return seconds below which no schedule of `jobs` on `devices` devices can end.

    The longest job, and the work over the devices (the seconds over `engines`, if those are
    capped); where widths do not pack (three devices of eight leave two idle) dual feasible
    functions say so (Fekete and Schepers, New classes of fast lower bounds for bin packing
    problems, 2001).
    """
    if not jobs:
        return 0.0
    longest = max(job.seconds for job in jobs)
    packed = (
        sum(job.seconds * _share(job.width, devices, k) for job in jobs) for k in _DENOMINATORS
    )
    work = sum(job.seconds * job.width for job in jobs) / devices
    capped = sum(job.seconds for job in jobs) / (engines or devices)
    return max(longest, work, capped, *packed)


def _share(width: int, devices: int, k: int) -> float:
    """Return the share of a host that a job takes at least, by the dual feasible function k.

    For any jobs that fit side by side these shares add up to at most 1.
    """
    whole, rest = divmod(width * (k + 1), devices)
    return width / devices if rest == 0 else whole / k


def _widest(job: Job) -> tuple[float, ...]:
    return -job.width, -job.seconds


def _longest(job: Job) -> tuple[float, ...]:
    return -job.seconds, -job.width


def _largest(job: Job) -> tuple[float, ...]:
    return -job.seconds * job.width, -job.width


_ORDERS: tuple[Callable[[Job], tuple[float, ...]], ...] = (_widest, _longest, _largest)


def plan(jobs: Sequence[Job], devices: int, engines: int | None = None) -> Plan:
    """Return the shortest schedule among a few orders: widest, longest or largest first.

    `engines` caps the jobs at once.

    Raises:
        ValueError: if a job is wider than the devices.
    """
    bound = lower_bound(jobs, devices, engines)
    best: tuple[Placed, ...] | None = None
    makespan = float("inf")
    for order in _ORDERS:
        placed = simulate(sorted(jobs, key=order), devices, engines)
        ends = max((one.end for one in placed), default=0.0)
        if best is None or ends < makespan:
            best, makespan = placed, ends
        if makespan <= bound * 1.0001:
            break
    assert best is not None
    return Plan(best, bound)
