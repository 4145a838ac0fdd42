"""The table of docs/trust.md: what was tried, and what came of it, as the run saw it."""

import datetime
import os
import platform
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "trust.md"
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"
# The name of a report's property that holds a record.
FAULT = "fault"
_CAUSE_WIDTH = 150


@dataclass(frozen=True)
class Record:
    """A fault that was survived: what was done, the verdict, where, and the cause line."""

    name: str
    verdict: str
    where: str
    cause: str


def write_page(records, outcomes):
    """Put counts and table between the marks of the page; `outcomes` maps a test to its end."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    counts = Counter(outcomes.values())
    day = datetime.datetime.now(datetime.timezone.utc).date()
    lines = [
        f"{len(outcomes) - counts['skipped']} faults tried, {counts['passed']} survived"
        + (f", {counts['skipped']} not possible on that host" if counts["skipped"] else "")
        + f" ({day}, vLLM 0.20.2 on CPU, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}).",
        "",
        "| fault | verdict | where | said |",
        "|--|--|--|--|",
        *(
            f"| {one.name} | {one.verdict} | {one.where} | {_cell(one.cause)} |"
            for one in sorted(records, key=lambda one: one.name)
        ),
    ]
    body = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")


def _cell(cause):
    """Return a cause for a table: one line, without what differs from run to run."""
    line = " ".join(cause.split()).replace("|", "\\|")
    line = re.sub(r"(?:/[\w.+-]+){2,}/", ".../", line)
    line = line.replace("<", "&lt;")
    return line if len(line) <= _CAUSE_WIDTH else f"{line[:_CAUSE_WIDTH]} ..."
