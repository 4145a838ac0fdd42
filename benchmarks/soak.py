"""Many engines in a row in one controller: what it, its server and the host hold after each.

    python benchmarks/soak.py OUT [--cells 60] [--minutes 40] [--model mm]

The same cell, PP=2 of the smallest instrument, is captured, sealed into a store, judged against
PP=1 and removed, until there were enough cells or the time is up. OUT gets `soak.json`, a record
per cell, and `README.md`, their summary. Ends with 1 if a verdict differs from the first one's, or
if anything is left behind: a process, shared memory, a temporary file, a descriptor more than
after the first cells.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.capture.children import ForkServers
from harness.capture.launch import launch
from harness.capture.pools import find_pool
from harness.capture.record import Capture
from harness.capture.store import Store
from harness.checks.judge import judge
from harness.checks.registry import Comparison, check_names
from harness.engine.hooks.workarounds import SHM
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

# A controller is warm, with every module imported and every cache filled, after so many cells.
_WARM = 3
_MIB = 1 << 20


@dataclass(frozen=True)
class After:
    """What is held after a cell: memory as resident MiB, the rest as numbers."""

    cell: int
    seconds: float
    verdicts: dict[str, str]
    controller_mib: float
    controller_descriptors: int
    controller_threads: int
    server_mib: float
    server_descriptors: int
    engines: int
    shared_memory: int
    temporary: int
    workspaces: int


class _Segments(threading.Thread):
    """Collects the names of the shared memory that the engines of this process map."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.names: set[str] = set()
        self._me = psutil.Process()

    def run(self) -> None:
        """Look, several times a second, for as long as the process lives."""
        while True:
            for one in self._me.children(recursive=True):
                # An engine may end while it is looked at.
                with contextlib.suppress(OSError):
                    maps = Path(f"/proc/{one.pid}/maps").read_text(encoding="utf-8")
                    self.names.update(re.findall(rf"{SHM}/(\S+)$", maps, re.MULTILINE))
            time.sleep(0.3)


class _Soak:
    def __init__(self, model: str, folder: Path) -> None:
        options = Options(pps=(2,), models=(model,), gsm8k_limit=2, store=folder / "store")
        self.sweep = Sweep(options)
        self.store = Store(folder / "store")
        self.servers = ForkServers()
        self._segments = _Segments()
        self._segments.start()
        self._me = psutil.Process()

    def capture(self, point: Point) -> Capture:
        """Run the engine of a point into the store."""
        cell = self.sweep.cell(point)
        devices = find_pool(self.sweep).ids[: find_pool(self.sweep).needed(point.pp, 1)]
        self.store.remove(cell.key)
        with self.store.workspace() as folder:
            manifest = launch(cell, folder, devices, self.servers, phase_timeout=300)
            return self.store.commit(cell.key, folder, manifest)

    def after(self, number: int, seconds: float, verdicts: dict[str, str]) -> After:
        """Return what is held now, between two engines."""
        (server,) = self._me.children()
        below = server.children(recursive=True)
        return After(
            cell=number,
            seconds=round(seconds, 1),
            verdicts=verdicts,
            controller_mib=round(self._me.memory_info().rss / _MIB, 1),
            controller_descriptors=self._me.num_fds(),
            controller_threads=self._me.num_threads(),
            server_mib=round(server.memory_info().rss / _MIB, 1),
            server_descriptors=server.num_fds(),
            engines=sum(one.status() != psutil.STATUS_ZOMBIE for one in below),
            shared_memory=sum((SHM / name).exists() for name in set(self._segments.names)),
            temporary=sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
            workspaces=sum(1 for _ in (self.store.root / "work").iterdir()),
        )


def _run(model: str, cells: int, minutes: float, folder: Path) -> list[After]:
    soak = _Soak(model, folder)
    point = Point("fixed", model, 2)
    try:
        baseline = soak.capture(point.baseline)
        records: list[After] = []
        began = time.monotonic()
        while len(records) < cells and time.monotonic() - began < minutes * 60:
            start = time.monotonic()
            candidate = soak.capture(point)
            seconds = time.monotonic() - start
            pair = Comparison(baseline, candidate)
            verdicts = {one: judge(one, pair).outcome.value for one in check_names()}
            records.append(soak.after(len(records) + 1, seconds, verdicts))
            print(json.dumps(asdict(records[-1])), flush=True)
        return records
    finally:
        soak.servers.close()


_HELD = {
    "controller_mib": "controller, MiB resident",
    "controller_descriptors": "controller, descriptors",
    "controller_threads": "controller, threads",
    "server_mib": "fork server, MiB resident",
    "server_descriptors": "fork server, descriptors",
    "engines": "processes of ended engines",
    "shared_memory": "segments of shared memory of ended engines",
    "temporary": "files and folders in the folder for temporary files",
    "workspaces": "half captures in the store",
}


def _problems(records: list[After]) -> list[str]:
    """Return what is not as it was after the first cells."""
    first, last = records[min(_WARM, len(records)) - 1], records[-1]
    grows = ("controller_descriptors", "controller_threads", "server_descriptors", "temporary")
    left = ("engines", "shared_memory", "workspaces")
    return [
        *(f"cell {one.cell}: {one.verdicts}" for one in records if one.verdicts != first.verdicts),
        *(
            f"left behind: {_HELD[name]}"
            for name in left
            if any(getattr(one, name) for one in records)
        ),
        *(f"grows: {_HELD[name]}" for name in grows if getattr(last, name) > getattr(first, name)),
        *(
            f"grows by more than a tenth: {_HELD[name]}"
            for name in ("controller_mib", "server_mib")
            if getattr(last, name) > 1.1 * getattr(first, name)
        ),
    ]


def _summary(records: list[After], model: str, command: str) -> str:
    first, last = records[min(_WARM, len(records)) - 1], records[-1]
    seconds = sorted(one.seconds for one in records)
    rows = [
        f"| {words} | {getattr(first, name)} | {getattr(last, name)} | "
        f"{max(getattr(one, name) for one in records)} |"
        for name, words in _HELD.items()
    ]
    problems = _problems(records)
    same = all(one.verdicts == records[0].verdicts for one in records)
    verdicts = ", ".join(f"{check} {verdict}" for check, verdict in records[0].verdicts.items())
    return "\n".join(
        [
            f"# Soak: {len(records)} engines in a row",
            "",
            f"`{command}`, vLLM 0.20.2 on CPU, {model} at PP=2 of `fixed`, two questions a cell;",
            f"Python {platform.python_version()}, {os.cpu_count()} cores, load average "
            f"{os.getloadavg()[2]:.0f} at the end.",
            "",
            f"Verdicts {'the same' if same else 'NOT the same'} in all {len(records)}: {verdicts}.",
            f"Problems: {'; '.join(problems) or 'none'}.",
            "",
            f"| held between two engines | after {first.cell} | after {last.cell} | most |",
            "|--|--|--|--|",
            *rows,
            "",
            f"An engine took {seconds[0]} to {seconds[-1]} s, in the median "
            f"{statistics.median(seconds):.1f} s.",
            "`soak.json` has a record per engine.",
            "",
        ]
    )


def main() -> int:
    """Soak; return 1 if something grows, is left, or differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--model", default="mm")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak", dir="/tmp") as folder:
        own = Path(folder, "t")
        own.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)
        records = _run(asked.model, asked.cells, asked.minutes, Path(folder))
        tempfile.tempdir = None
        del os.environ["TMPDIR"]
    content: Any = [asdict(one) for one in records]
    (asked.out / "soak.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    command = f"python benchmarks/soak.py OUT --cells {asked.cells} --model {asked.model}"
    text = _summary(records, asked.model, command)
    (asked.out / "README.md").write_text(text, encoding="utf-8")
    print(text)
    return 1 if _problems(records) else 0


if __name__ == "__main__":
    sys.exit(main())
