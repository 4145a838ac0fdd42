"""Writes the table of results/lint-census/README.md from its readings.

    python -m tools.census

Every finding of the lint on the trees that were read is a row of `readings.csv`: two readings of
the code at its line, and the verdict (where they differ, decided by a third look).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "results" / "lint-census"
PAGE = FOLDER / "README.md"
_TABLE = re.compile(r"(?<=<!-- table:begin -->\n).*?(?=<!-- table:end -->)", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """One finding, and what two readings of the code say of it."""

    tree: str
    path: str
    line: str
    rule: str
    symbol: str
    first: str
    second: str
    verdict: str
    why: str


def readings() -> list[Reading]:
    """Return all rows of readings.csv.

    Raises:
        ValueError: A reading is neither `true` nor `false`, or its columns are others.
    """
    with (FOLDER / "readings.csv").open(encoding="utf-8", newline="") as file:
        rows = [Reading(**row) for row in csv.DictReader(file)]
    for row in rows:
        if not {row.first, row.second, row.verdict} <= {"true", "false"}:
            raise ValueError(f"{row}: a reading is true or false")
        if row.first == row.second != row.verdict:
            raise ValueError(f"{row}: the verdict contradicts both readings")
    return rows


def table(rows: Iterable[Reading]) -> str:
    """Return the table rule x tree of (true, false), with a row for all rules together."""
    rows = list(rows)
    trees = sorted({row.tree for row in rows})
    counts = Counter((row.rule, row.tree, row.verdict) for row in rows)
    counts.update(("all", row.tree, row.verdict) for row in rows)
    lines = ["| rule | " + " | ".join(trees) + " |", "|--" * (len(trees) + 1) + "|"]
    for rule in [*sorted({row.rule for row in rows}), "all"]:
        pairs = [(counts[rule, tree, "true"], counts[rule, tree, "false"]) for tree in trees]
        cells = [f"{right}, {wrong}" if right + wrong else "" for right, wrong in pairs]
        lines.append("| " + " | ".join([rule, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rewrite the table in the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_TABLE.sub(lambda _: table(readings()), page), encoding="utf-8")


if __name__ == "__main__":
    main()
