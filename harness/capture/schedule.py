"""List scheduling of engines on devices: pure, for the runner, `--pp-plan` and the benchmark.

A cell takes `width` devices at once for seconds that are known only roughly. Whenever devices are
free, the first cell of a list that fits starts (Graham, Bounds on multiprocessing timing
anomalies, 1969); the list is longest first, or widest or largest first where that ends earlier.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A cell as the scheduler sees it: `width` devices at once for `seconds`, as expected."""

    name: str
    width: int
    seconds: float


@dataclass(frozen=True)
class ScheduledJob:
    """A job with its start, in seconds after the first start."""

    job: Job
    start: float

    @property
    def end(self) -> float:
        """Seconds after the first start at which the job is expected to end."""
        return self.start + self.job.seconds


_ORDERS: tuple[Callable[[Job], tuple[float, ...]], ...] = (
    lambda job: (-job.seconds, -job.width),
    lambda job: (-job.width, -job.seconds),
    lambda job: (-job.seconds * job.width, -job.width),
)


def first_fit(waiting: Sequence[Job], free: int) -> int | None:
    """Index of the first job that `free` devices are enough for, None if there is none."""
    return next((index for index, job in enumerate(waiting) if job.width <= free), None)


def simulate(
    order: Sequence[Job], devices: int, engines: int | None = None
) -> tuple[ScheduledJob, ...]:
    """Start the jobs of a list as the runner does, if all take as long as expected.

    `engines` caps the jobs at once. The result is in the order of starts.

    Raises:
        ValueError: if a job is wider than the devices.
    """
    if any(job.width > devices for job in order):
        raise ValueError(f"a job is wider than {devices} devices")
    waiting, free, now = list(order), devices, 0.0
    running: list[tuple[float, int]] = []
    scheduled = []
    while waiting:
        index = None if len(running) == engines else first_fit(waiting, free)
        if index is None:
            now, width = heapq.heappop(running)
            free += width
            continue
        job = waiting.pop(index)
        scheduled.append(ScheduledJob(job, now))
        free -= job.width
        heapq.heappush(running, (now + job.seconds, job.width))
    return tuple(scheduled)


def schedule(
    jobs: Sequence[Job], devices: int, engines: int | None = None
) -> tuple[ScheduledJob, ...]:
    """Take the shortest schedule of the three lists; arguments and errors as of `simulate`."""
    lists = (sorted(jobs, key=order) for order in _ORDERS)
    return min((simulate(each, devices, engines) for each in lists), key=makespan)


def makespan(scheduled: Sequence[ScheduledJob]) -> float:
    """Seconds from the first start to the last end."""
    return max((each.end for each in scheduled), default=0.0)


def lower_bound(jobs: Sequence[Job], devices: int, engines: int | None = None) -> float:
    """Seconds below which no schedule of `jobs` can end.

    The longest job; the work over the devices; the seconds over the engines; and the seconds of
    the jobs that take more than half of the devices, since no two of those run side by side.
    """
    return max(
        max((job.seconds for job in jobs), default=0.0),
        sum(job.seconds * job.width for job in jobs) / devices,
        sum(job.seconds for job in jobs) / (engines or devices),
        sum(job.seconds for job in jobs if 2 * job.width > devices),
    )
