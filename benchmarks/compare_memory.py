"""What comparing two captures' logits takes: peak memory, with and without file-backed pages.

    python benchmarks/compare_memory.py [--rows N] [--vocabulary N] [--folder DIR]

Two files of float32 (4,096 rows of 262,144: 4 GiB each) are written in a temporary folder; half of
the rows differ by noise, with some tokens flipped. A process of its own then compares them as the
logits check does. Its anonymous memory is read from /proc every 20 ms; what is mapped from the
files is cache of the kernel, which takes it back when it needs it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.capture.record import LogitTable
from harness.checks.logits.distance import distance

MIB = 2**20
BLOCK = 64  # rows written at a time


def write(folder: Path, rows: int, vocabulary: int) -> None:
    """Write both files; odd rows differ."""
    draw = np.random.default_rng(0)
    with (folder / "baseline").open("wb") as left, (folder / "candidate").open("wb") as right:
        for start in range(0, rows, BLOCK):
            shape = (min(BLOCK, rows - start), vocabulary)
            block = draw.standard_normal(shape, np.float32)
            left.write(block.tobytes())
            block[1::2] += draw.standard_normal(block[1::2].shape, np.float32) * np.float32(0.1)
            right.write(block.tobytes())


def compare(folder: Path, rows: int, vocabulary: int) -> None:
    """Compare the files of a folder and print what came out, and the peak of this process."""
    tables = [
        LogitTable(
            np.memmap(folder / name, np.float32, mode="r", shape=(rows, vocabulary)),
            {("r", row): row for row in range(rows)},
        )
        for name in ("baseline", "candidate")
    ]
    far = distance(*tables)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{far.rows} rows, {far.equal_rows} equal, max abs {far.max_abs:.3g}, top-1 {far.top1:.1%}"
    )
    print(f"peak with file-backed pages {peak:.0f} MiB")


def anonymous(process: subprocess.Popen[bytes]) -> float:
    """Return the most anonymous memory, in MiB, that is seen until a process ends."""
    most = 0.0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            break
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                most = max(most, int(line.split()[1]) / 1024)
        time.sleep(0.02)
    return most


def main() -> None:
    """Write the files, compare them in a process of its own, print its peaks and its time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=262144)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--compare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compare:
        compare(options.compare, options.rows, options.vocabulary)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write(Path(folder), options.rows, options.vocabulary)
        size = options.rows * options.vocabulary * 4 / MIB
        print(f"two files of {options.rows} x {options.vocabulary} float32, {size:.0f} MiB each")
        sys.stdout.flush()
        began = time.monotonic()
        arguments = ("--rows", str(options.rows), "--vocabulary", str(options.vocabulary))
        child = subprocess.Popen([sys.executable, __file__, *arguments, "--compare", folder])
        most = anonymous(child)
        if child.wait() != 0:
            raise SystemExit("the comparison failed")
        print(f"peak without them {most:.0f} MiB, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
