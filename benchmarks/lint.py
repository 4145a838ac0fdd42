"""Times `pp-harness lint` against `ruff check` on the same files, in turns.

    python benchmarks/lint.py PATH_TO_VLLM [--rounds N]

Every figure is the wall time of a fresh process (imports included): the best and the median of N
rounds. Rounds alternate between the programs, so that a busy machine slows all of them. The
processor time of all processes of a round, and the most memory that one of them held, are given
for the lint.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.lint.sources import model_files

# Imported by none, by a few and by very many of the other model files.
_CHANGED = ("opt.py", "whisper.py", "qwen2.py")


@dataclass(frozen=True)
class Timed:
    """Seconds that one program took, round by round."""

    name: str
    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def row(self) -> str:
        """One line of the table."""
        return (
            f"{self.name:34} wall: best {min(self.wall):6.2f} s, median "
            f"{statistics.median(self.wall):6.2f} s   cpu: best {min(self.cpu):6.2f} s"
        )


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str]) -> tuple[float, float]:
    start, before = time.perf_counter(), _cpu()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    # Findings make both programs end with 1.
    if done.returncode not in (0, 1):
        raise SystemExit(f"{command[0]}: {done.stderr.decode()[-500:]}")
    return time.perf_counter() - start, _cpu() - before


def _in_turns(commands: dict[str, list[str]], rounds: int) -> list[Timed]:
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name].append(_run(command))
    return [
        Timed(name, tuple(wall for wall, _ in pairs), tuple(cpu for _, cpu in pairs))
        for name, pairs in seconds.items()
    ]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vllm", type=Path, help="a vLLM package or checkout")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = model_files([options.vllm])
    largest = max(files, key=lambda path: path.stat().st_size)
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        raise SystemExit("ruff is not installed")
    lint = [sys.executable, "-m", "harness", "lint"]
    check = [ruff, "check", "--isolated", "--no-cache", "--quiet"]
    commands = {
        f"lint, all {len(files)} files": [*lint, str(options.vllm)],
        f"ruff check, all {len(files)} files": [*check, *map(str, files)],
        f"lint, {largest.name}": [*lint, str(largest)],
        **{
            f"lint, change of {path.name}": [*lint, "--changed", str(path), str(options.vllm)]
            for path in files
            if path.name in _CHANGED
        },
        f"ruff check, {largest.name}": [*check, str(largest)],
    }
    for timed in _in_turns(commands, options.rounds):
        print(timed.row())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"most memory of one process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
