"""How small a fault the logits check sees under noise: faults of known size put into captures.

    python -m benchmarks.power STORE

STORE holds captures of the stress profile at PP=1 and PP=2 (`--pp-store`), whose noise is real: the
moves of PP=2 and of each floor pass; or of compiled code, whose floor is PP=1 in eager mode. A
fault moves rows by a share of their size from the first layer of stage 1 on, at right angles to
their noise. No engine runs. On a CPU bfloat16 has no noise; `as on GPUs` gives each pass some of
the size that two H100s showed (results/2026-11-26-h100x2, pin26-stress: 40 % of rows, by 0.2 % of
their size). The page of numbers has the table.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np

from harness.capture.record import Capture, load_capture
from harness.checks.logits.distance import LogitDistance, distance
from harness.checks.logits.logits import compare_logits
from harness.checks.logits.noise import Floats, Moves, Place
from harness.checks.logits.noise_verdict import weigh
from harness.checks.logits.places import layer_places, logit_place
from harness.engine.settings import Mode, Profile
from harness.plan.cell import Cell

REPEATS = 10
SYSTEMATIC = (0.001, 0.003, 0.01, 0.02, 0.06)
SINGLE = (0.01, 0.06, 0.3)
LATE_SIZES, _LATE = (0.01, 0.03), 40
# The distance of rows that have nothing to do with each other: the root of two.
UNRELATED = 2**0.5
_GPU_SHARE, _GPU_SIZE = 0.4, 2e-3

Fault = Callable[[np.random.Generator, dict[str, int]], dict[str, Floats]]


def systematic(size: float) -> Fault:
    """Every row is off."""
    return lambda _draw, rows: {name: np.full(count, size) for name, count in rows.items()}


def in_requests(size: float, count: int) -> Fault:
    """Every row of some requests is off."""

    def fault(draw: np.random.Generator, rows: dict[str, int]) -> dict[str, Floats]:
        chosen = draw.choice(list(rows), count, replace=False)
        return {name: np.full(n, size * (name in chosen)) for name, n in rows.items()}

    return fault


def late_rows(size: float) -> Fault:
    """Rows of long requests are off, and short ones have none."""
    return lambda _draw, rows: {
        name: np.where(np.arange(count) >= _LATE, size, 0.0) for name, count in rows.items()
    }


def single_row(size: float) -> Fault:
    """One row of one request is off."""

    def fault(draw: np.random.Generator, rows: dict[str, int]) -> dict[str, Floats]:
        chosen = draw.choice(list(rows))
        place = int(draw.integers(rows[chosen]))
        return {
            name: np.where((np.arange(n) == place) & (name == chosen), size, 0.0)
            for name, n in rows.items()
        }

    return fault


def swapped(draw: np.random.Generator, rows: dict[str, int]) -> dict[str, Floats]:
    """One row of each of two requests is the other's."""
    first, second = (single_row(UNRELATED)(draw, rows) for _ in range(2))
    return {name: np.maximum(first[name], second[name]) for name in rows}


FAULTS: dict[str, Fault] = {
    "none": systematic(0.0),
    **{f"every row by {size:.1%}": systematic(size) for size in SYSTEMATIC},
    **{f"rows from the 40th on by {size:.0%}": late_rows(size) for size in LATE_SIZES},
    **{f"two requests by {size:.0%}": in_requests(size, 2) for size in SINGLE},
    **{f"one row by {size:.0%}": single_row(size) for size in SINGLE},
    "neighbours swapped": swapped,
}


def _engine(cell: Cell) -> tuple[str, str, str, str]:
    return cell.pin, cell.variant, cell.model, cell.dtype


def pairs(store: Path) -> Iterator[tuple[Capture, Capture, list[LogitDistance]]]:
    """Yield the captures at PP=1 and PP=2 of an engine, under stress or compiled, and its floor."""
    loaded = [load_capture(path.parent) for path in sorted(store.rglob("capture.json"))]
    captures = [each for each in loaded if each is not None and not each.cell.engine_args]
    by_engine = {
        (_engine(capture.cell), capture.cell.mode, capture.cell.profile, capture.cell.pp): capture
        for capture in captures
    }
    for (engine, mode, profile, pp), baseline in sorted(by_engine.items()):
        candidate = by_engine.get((engine, mode, profile, 2))
        if pp != 1 or candidate is None:
            continue
        if mode is Mode.COMPILED:
            floors = [by_engine[engine, Mode.EAGER, profile, 1].logits]
        elif profile is Profile.STRESS:
            floors = list(baseline.floor_logits)
        else:
            continue
        yield baseline, candidate, [distance(baseline.logits, floor) for floor in floors]


def honest_pairs(baseline: Capture) -> Iterator[tuple[Capture, Capture]]:
    """Yield each two passes of PP=1, with the other passes as the floor of the first."""
    tables = (baseline.logits, *baseline.floor_logits)

    def view(*passes: int) -> Capture:
        capture = Capture(baseline.folder, baseline.manifest)
        ranks = {}
        for place, trace in baseline.ranks.items():
            steps = (trace.steps, *trace.floor_steps)
            first, *others = (steps[number] for number in passes)
            ranks[place] = replace(trace, steps=first, floor_steps=tuple(others))
        vars(capture).update(_logits=tuple(tables[number] for number in passes), ranks=ranks)
        return capture

    for first, other in permutations(range(len(tables)), 2):
        rest = set(range(len(tables))) - {first, other}
        yield view(first, *sorted(rest)), view(other)


def as_on_gpus(draw: np.random.Generator, places: list[Place]) -> list[Place]:
    """Move requests of every pass from some layer on, as rounding on GPUs does."""

    def noisy(index: int, moves: Moves, began: dict[str, int]) -> Moves:
        return {
            name: np.where(
                index >= began[name], _GPU_SIZE * np.exp(draw.normal(0, 0.5, len(far))), far
            )
            for name, far in moves.items()
        }

    passes = len(places[0].floors) + 1
    late = len(places)
    began = [
        {
            name: int(draw.integers(late)) if draw.random() < _GPU_SHARE else late
            for name in places[0].candidate
        }
        for _ in range(passes)
    ]
    return [
        replace(
            place,
            candidate=noisy(index, place.candidate, began[0]),
            floors=tuple(noisy(index, f, b) for f, b in zip(place.floors, began[1:], strict=True)),
        )
        for index, place in enumerate(places)
    ]


def with_fault(places: list[Place], boundary: int, fault: dict[str, Floats]) -> list[Place]:
    """Move the rows of the candidate from the layer behind a boundary on.

    A place with fewer rows than the fault has them evenly spread (`kept_positions`).
    """

    def here(sizes: Floats, count: int) -> Floats:
        spread: Floats = sizes[np.linspace(0, len(sizes) - 1, count).round().astype(int)]
        return spread

    return [
        replace(
            place,
            candidate={
                name: np.hypot(far, here(fault[name], len(far)))
                for name, far in place.candidate.items()
            },
        )
        if place.layer is None or place.layer >= boundary
        else place
        for place in places
    ]


def main() -> None:
    """Print a row for each fault and a column for each model and dtype: fail / open / pass."""
    columns: dict[str, dict[str, str]] = {}
    honest: Counter[str] = Counter()
    for baseline, candidate, floors in pairs(Path(sys.argv[1])):
        cell, experts = baseline.cell, "moe" in baseline.cell.model
        compiled = cell.mode is Mode.COMPILED
        for first, other in () if compiled else honest_pairs(baseline):
            honest[compare_logits(first, other).outcome] += 1
        far = distance(baseline.logits, candidate.logits)
        layers = [] if compiled else layer_places(baseline, candidate)
        places = [*layers, logit_place(far, floors)]
        boundary = min(candidate.stages[1].layers, default=0)
        name_of = " ".join((*_engine(cell), *(["compiled"] if compiled else [])))
        quiet = cell.dtype == "bfloat16" and not compiled
        kinds = ("", " as on GPUs") if quiet else ("",)
        for kind in kinds:
            column = columns.setdefault(name_of + kind, {})
            for title, fault in FAULTS.items():
                counts = {"fail": 0, "open": 0, "pass": 0}
                for number in range(REPEATS):
                    draw = np.random.default_rng(number)
                    noise = as_on_gpus(draw, places) if kind else places
                    rows = {
                        name: max(len(place.candidate[name]) for place in noise)
                        for name in noise[-1].candidate
                    }
                    moved = with_fault(noise, boundary, fault(draw, rows))
                    weighed = weigh(moved, {boundary}, cell.dtype, has_experts=experts)
                    verdict = "fail" if weighed.excess else "open" if weighed.open else "pass"
                    counts[verdict] += 1
                column[title] = " / ".join(str(count) for count in counts.values())
    print("PP=1 compared with itself:", dict(honest))
    print("| fault |", " | ".join(columns), "|")
    print("|--|" + "--|" * len(columns))
    for name in FAULTS:
        print(f"| {name} |", " | ".join(column[name] for column in columns.values()), "|")


if __name__ == "__main__":
    main()
