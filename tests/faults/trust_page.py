"""The table of a page of faults: what was tried, and what came of it, as the run saw it."""

import datetime
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from harness.assets import patches_dir
from harness.source.pin import load_pins

NOTES = Path(__file__).resolve().parents[2] / "results" / "notes"
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


def write_page(records, version):
    """Put the records and their count between the marks of a release's page ("": the default pin).

    A fault that was not tried this time keeps its row: each row is of the last run that tried it.
    """
    page = NOTES / (f"faults-{version}.md" if version else "faults.md")
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    rows = {line.split(" | ")[0]: line for line in old.splitlines() if line.startswith("| ")}
    rows.pop("| fault", None)
    for one in records:
        row = f"| {one.name} | {one.verdict} | {one.where} | {_cell(one.cause)} |"
        rows[f"| {one.name}"] = row
    survived = sum("**not survived**" not in row for row in rows.values())
    day = datetime.datetime.now(datetime.UTC).date()
    release = version or load_pins(patches_dir()).default.version
    lines = [
        f"{len(rows)} faults tried, {survived} survived ({day}, vLLM {release} on CPU, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}).",
        "",
        "| fault | verdict | where | reported |",
        "|--|--|--|--|",
        *sorted(rows.values()),
    ]
    body = "\n".join(lines)
    page.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")


def _cell(cause):
    """Return a cause for a table: one line, without what differs from run to run."""
    line = " ".join(cause.split()).replace("|", "\\|")
    line = re.sub(r"(?:/[\w.+-]+){2,}/", ".../", line)
    line = line.replace("<", "&lt;")
    return line if len(line) <= _CAUSE_WIDTH else f"{line[:_CAUSE_WIDTH]} ..."
