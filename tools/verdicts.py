"""The verdict tables of results/README.md, from the reports that lie beside it.

python -m tools.verdicts     (writes the part of the page that begins with its heading)
"""

import shlex
from pathlib import Path

from harness.report.files import REPORT, read_report
from harness.report.terminal import verdict_table

HEADING = "## Verdict tables"
RESULTS = Path(__file__).resolve().parents[1] / "results"


def verdict_tables(results: Path) -> str:
    """Return the tables of all reports below `results`, each with what pytest was asked for."""
    lines = [
        HEADING,
        "",
        "Written by `python -m tools.verdicts` from each `report.json`; a star marks a known",
        "finding of `suites/expected.toml` as it was then. A record's README says which verdicts",
        "later turned out to be faults of ours.",
    ]
    for path in sorted(results.rglob(REPORT)):
        report = read_report(path.parent)
        lines += ["", f"### {path.parent.relative_to(results)}", "", "```text"]
        if arguments := report.environment.get("arguments"):
            lines += [f"$ pytest {shlex.join(arguments)}", ""]
        lines += [*verdict_table(report.verdicts), "```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the tables into the page."""
    page = RESULTS / "README.md"
    index = page.read_text(encoding="utf-8").partition(HEADING)[0]
    page.write_text(index + verdict_tables(RESULTS), encoding="utf-8")


if __name__ == "__main__":
    main()
