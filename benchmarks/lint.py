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
from pathlib import Path

from harness.lint.sources import model_files

# Imported by none, by a few and by very many of the other model files.
_CHANGED = ("opt.py", "whisper.py", "qwen2.py", "qwen2_vl.py")
_PARSE = "import ast, sys\nfor name in sys.argv[1:]: ast.parse(open(name, 'rb').read())"


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


def _in_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return the wall and processor seconds of each program, round by round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name].append(_run(command))
    return seconds


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
    parsing = f"ast.parse, all {len(files)} files"
    commands = {
        parsing: [sys.executable, "-c", _PARSE, *names],
        f"ruff check, all {len(files)} files": [*check, *names],
        f"lint, all {len(files)} files": [*lint, str(options.vllm)],
        **{
            f"lint, change of {path.name}": [*lint, "--changed", str(path), str(options.vllm)]
            for path in files
            if path.name in _CHANGED
        },
    }
    timed = _in_turns(commands, options.rounds)
    yardstick = min(cpu for _, cpu in timed[parsing])
    for name, pairs in timed.items():
        wall, cpu = map(min, zip(*pairs, strict=True))
        ratio = f"{cpu / yardstick:5.2f} of parsing"
        print(f"{name:34} wall {wall:6.2f} s   cpu {cpu:6.2f} s   {ratio}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"most memory of one process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
