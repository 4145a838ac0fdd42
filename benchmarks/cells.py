"""What one more cell costs, and what it costs with more questions or a larger vocabulary.

    python benchmarks/cells.py [--pp 2] [--rounds 3] [--questions 16,64,128]
                               [--vocabularies 1024,16384,262144]

Cells are launched as a sweep launches them, one at a time, from one fork server, in turns. The
first pays for the import of vLLM, the others do not. Questions are asked of `ple`; the vocabulary
is that of a small decoder with random weights, whose other sizes stay; `spawned` is the first line
with ranks that import vLLM themselves. Printed: median seconds of each phase, and the ratio of the
totals to the first line of each kind.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.capture.children import ForkServers
from harness.capture.devices import lease
from harness.capture.launch import launch
from harness.capture.order import devices_needed
from harness.capture.pools import find_pool
from harness.plan.cell import Cell
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

PHASES = ("engine", "probes", "sensitivity", "gsm8k", "shutdown")
SHAPE = (
    "shape:E4B:layers=8:hidden=64:intermediate=128:ple=16:kv_shared=2:window=32:head=32"
    ":global_head=64:vocab={}"
)


@dataclass(frozen=True)
class Setting:
    """One kind of cell: what is varied, how much of it, and the sweep that it is from."""

    what: str
    amount: int
    sweep: Sweep
    cell: Cell


def setting(what: str, amount: int, pp: int, store: Path) -> Setting:
    """Return the cell of `amount` questions, or of a vocabulary of `amount` tokens."""
    asks = what != "vocabulary"
    options = Options(
        pps=(max(2, pp),),
        variants=("fixed",),
        models=("ple" if asks else SHAPE.format(amount),),
        gsm8k_limit=amount if asks else None,
        store=store,
    )
    sweep = Sweep(options)
    cell = sweep.cell(Point("fixed", next(iter(sweep.models)), pp))
    return Setting(what, amount, sweep, cell)


def measure(one: Setting, servers: ForkServers) -> dict[str, float]:
    """Run a cell and return the seconds of its phases and its total."""
    pool = find_pool(one.sweep)
    with (
        tempfile.TemporaryDirectory() as folder,
        lease(pool, devices_needed(one.cell, pool)) as devices,
    ):
        manifest = launch(
            one.cell,
            Path(folder),
            devices,
            servers,
            phase_timeout=600,
            worker_start="spawn" if one.what == "spawned" else "fork",
        )
    if manifest.failure is not None:
        raise SystemExit(f"{one.what} {one.amount}: {manifest.failure.error}")
    return manifest.seconds


def main() -> None:
    """Measure in turns and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pp", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", default="16,64,128")
    parser.add_argument("--vocabularies", default="1024,16384,262144")
    options = parser.parse_args()
    servers = ForkServers()
    try:
        with tempfile.TemporaryDirectory() as store:
            settings = [
                setting(what, int(amount), options.pp, Path(store))
                for what, amounts in (
                    ("questions", options.questions),
                    ("spawned", options.questions.split(",")[0]),
                    ("vocabulary", options.vocabularies),
                )
                for amount in amounts.split(",")
            ]
            first = measure(settings[0], servers)
            taken = [[measure(one, servers) for one in settings] for _ in range(options.rounds)]
    finally:
        servers.close()
    print(f"PP={options.pp}, {options.rounds} rounds; the first cell waited {first['start']:.1f} s")
    print("for the import of vLLM, which later cells share")
    print(f"{'':18}" + "".join(f"{phase:>12}" for phase in (*PHASES, "total")) + f"{'ratio':>8}")
    base: dict[str, float] = {}
    first_line = {"spawned": "questions"}
    for number, one in enumerate(settings):
        medians = [
            statistics.median(each[number].get(phase, 0.0) for each in taken)
            for phase in (*PHASES, "total")
        ]
        kind = first_line.get(one.what, one.what)
        ratio = medians[-1] / base.setdefault(kind, medians[-1])
        row = "".join(f"{value:12.2f}" for value in medians)
        print(f"{one.what:10}{one.amount:8}{row}{ratio:8.2f}")


if __name__ == "__main__":
    main()
