"""What the controller costs before any engine: `--help`, `--collect-only`, imports, a warm plan.

    python benchmarks/startup.py [--rounds N]

Each figure is the wall time of fresh processes, in turns: the best and the median. `python -c pass`
stands beside them, since a busy machine slows all. The last line says whether torch, vLLM or
transformers was imported by any of them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from harness.assets import suites_dir

HEAVY = ("torch", "vllm", "transformers", "lm_eval")
_REPORT = (
    "import atexit, sys; atexit.register(lambda: print('HEAVY', *(name for name in "
    f"{HEAVY!r} if name in sys.modules))); "
)
_PYTEST = _REPORT + "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
_CLI = _REPORT + "from harness.cli.main import main; main(sys.argv[1:])"


def main() -> None:
    """Time each command in turns and print best and median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    suite, quiet = str(suites_dir()), ("-q", "-p", "no:cacheprovider")
    commands = {
        "python -c pass": ["-c", _REPORT],
        "pp-harness --help": ["-c", _CLI, "--help"],
        "pytest --version": ["-c", _PYTEST, "--version"],
        "pytest --collect-only suites/": ["-c", _PYTEST, suite, "--collect-only", *quiet],
        "pytest --collect-only suites/ --pp 4": [
            *("-c", _PYTEST, suite, "--collect-only", "--pp", "4", *quiet)
        ],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    heavy: dict[str, set[str]] = {name: set() for name in commands}
    for _ in range(options.rounds):
        for name, arguments in commands.items():
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True, check=True
            )
            taken[name].append(time.perf_counter() - began)
            last = done.stdout.splitlines()[-1].split()
            heavy[name].update(last[1:])
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{name:38} best {min(seconds):5.2f} s, median {median:5.2f} s")
    found = {name: sorted(found) for name, found in heavy.items() if found}
    print(f"imported beside: {found or 'none of ' + ', '.join(HEAVY)}")


if __name__ == "__main__":
    main()
