"""Schedules simulated sweeps with the code of the runner: makespan over its lower bound.

    python benchmarks/schedule.py [--seeds N]

Sweeps of 10 to 1,000 cells on 1 to 128 devices. Kinds: `sweep`, variants x models at PP 1, 2, 4
and 8 as `--pp 8` makes them, `wide`, PP 1 to 8 at TP 1 to 4, and `odd`, any width from 1 to 16,
with times over three orders of magnitude. No engine, no device: only the scheduler runs.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable

from harness.capture.schedule import Job, lower_bound, makespan, schedule

CELLS = (10, 30, 100, 300, 1000)
DEVICES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128)


def _sweep(number: int, draw: random.Random) -> Job:
    pp = (1, 2, 4, 8)[number % 4]
    model = 1.0 + (number // 4) % 5  # five models, from small to large
    return Job(str(number), pp, model * (10 + 6 * pp) * draw.uniform(0.8, 1.2))


def _wide(number: int, draw: random.Random) -> Job:
    width = draw.choice((1, 2, 4, 8)) * draw.choice((1, 1, 2, 4))
    return Job(str(number), width, (20 + 5 * width) * draw.lognormvariate(0, 0.7))


def _odd(number: int, draw: random.Random) -> Job:
    return Job(str(number), draw.randint(1, 16), 10 ** draw.uniform(0, 3))


KINDS: dict[str, Callable[[int, random.Random], Job]] = {
    "sweep": _sweep,
    "wide": _wide,
    "odd": _odd,
}


def main() -> None:
    """Simulate and print the worst ratio of each kind and size, and the slowest plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    worst: dict[tuple[str, int], float] = defaultdict(float)
    slowest: dict[int, float] = defaultdict(float)
    for kind, make in KINDS.items():
        for cells in CELLS:
            for devices in DEVICES:
                for seed in range(options.seeds):
                    draw = random.Random(f"{kind}/{cells}/{devices}/{seed}")  # noqa: S311 - a simulation
                    made = (make(number, draw) for number in itertools.count())
                    fitting = (job for job in made if job.width <= devices)
                    jobs = list(itertools.islice(fitting, cells))
                    began = time.process_time()
                    scheduled = schedule(jobs, devices)
                    slowest[cells] = max(slowest[cells], time.process_time() - began)
                    ratio = makespan(scheduled) / lower_bound(jobs, devices)
                    worst[kind, cells] = max(worst[kind, cells], ratio)
    print(f"makespan over lower bound, the worst of {len(DEVICES) * options.seeds} sweeps each")
    print(f"{'cells':>6}" + "".join(f"{kind:>8}" for kind in KINDS) + f"{'slowest plan (cpu)':>22}")
    for cells in CELLS:
        ratios = "".join(f"{worst[kind, cells]:8.3f}" for kind in KINDS)
        print(f"{cells:6}{ratios}{slowest[cells]:20.3f} s")


if __name__ == "__main__":
    main()
