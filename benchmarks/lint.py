"""Times `pp-harness lint` against parsing the same files, and against `ruff check`, in turns.

    python benchmarks/lint.py PATH_TO_VLLM [--rounds N]

Every figure is of a fresh process with its children (imports included): the best of N rounds.
Rounds alternate between the programs, so that a busy machine slows all of them. `cpu` is user and
system time together, and the ratio is that of `ast.parse` on all files in one process. At last, the
most memory that one process of the lint held.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.lint.sources import model_files

# Imported by none, by a few and by very many of the other model files.
_CHANGED = ("opt.py", "whisper.py", "qwen2.py", "qwen2_vl.py")
_PARSE = "import ast, sys\nfor name in sys.argv[1:]: ast.parse(open(name, 'rb').read())"


@dataclass(frozen=True)
class Timed:
    """Seconds that one program took, round by round."""

    name: str
    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def row(self, yardstick: float) -> str:
        """One line of the table."""
        cpu = min(self.cpu)
        return (
            f"{self.name:34} wall {min(self.wall):6.2f} s   cpu {cpu:6.2f} s   "
            f"{cpu / yardstick:5.2f} of parsing"
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
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        raise SystemExit("ruff is not installed")
    lint = [sys.executable, "-m", "harness", "lint"]
    check = [ruff, "check", "--isolated", "--no-cache", "--quiet"]
    names = [str(path) for path in files]
    commands = {
        f"ast.parse, all {len(files)} files": [sys.executable, "-c", _PARSE, *names],
        f"ruff check, all {len(files)} files": [*check, *names],
        f"lint, all {len(files)} files": [*lint, str(options.vllm)],
        **{
            f"lint, change of {path.name}": [*lint, "--changed", str(path), str(options.vllm)]
            for path in files
            if path.name in _CHANGED
        },
    }
    timed = _in_turns(commands, options.rounds)
    for each in timed:
        print(each.row(yardstick=min(timed[0].cpu)))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"most memory of one process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
