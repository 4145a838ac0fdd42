"""The history of runs: an append-only file, one JSON line per run, point and check.

Several jobs may append to one file at a time. A line that a dying writer left incomplete stays
where it is, and is reported; a line of a newer version is refused, since to skip it would lose a
night.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from ..checks.finding import Outcome
from ..checks.registry import find_check
from ..errors import BadInputError
from ..plan.options import SETTINGS
from ..plan.points import Point
from .order import by_check
from .schema import Report, VerdictRecord

SCHEMA = "pp-harness-history/1"
# What all points of a run share; nights are compared only where it is equal.
SETTING = ("device", "gsm8k", "gsm8k_limit", *SETTINGS)


class HistoryLine(VerdictRecord):
    """One verdict of one run; `run` is its start in UTC, `time` the same as epoch.

    `outcome` is ok for a pass, expected for a known finding or where the check does not apply,
    else unexpected. `inputs` is the key of the capture, which covers all that can change its bits;
    `outputs` maps what the check compares to the digest of those bits. Fields are added within
    version 1, and older readers ignore them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_: str = Field(default=SCHEMA, alias="schema")
    kind: Literal["check"] = "check"
    run: str
    time: float
    series: str
    setting: dict[str, str]
    expected: bool = False
    outcome: Literal["ok", "expected", "unexpected"]
    codes: list[str] = Field(default_factory=list)
    tree: str = ""
    inputs: str = ""
    outputs: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The check and its point, as in pytest's item ids."""
        return f"{self.check}[{Point.of(self).id}]"

    @property
    def state(self) -> str:
        """The verdict, and whether it is a known finding's."""
        known = self.outcome == "expected" and self.verdict is not Outcome.NOT_APPLICABLE
        return f"{self.verdict} (expected)" if known else self.verdict

    @property
    def conditions(self) -> str:
        """Series and setting in words."""
        setting = (f"{name} {value}" for name, value in sorted(self.setting.items()))
        return ", ".join([self.series, *setting])

    @property
    def track(self) -> tuple[str, Point, str]:
        """The conditions, point and check of which this line is a night."""
        return self.conditions, Point.of(self), self.check


class AnchorLine(BaseModel):
    """A person accepts the levels as they were at `time` (epoch) and says why: the new anchor."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    kind: Literal["anchor"] = "anchor"
    time: float
    reason: str


@dataclass(frozen=True)
class History:
    """A file read back: its lines, the time of the accepted anchor, the numbers of bad lines."""

    lines: tuple[HistoryLine, ...]
    anchor: float | None
    damaged: tuple[int, ...]

    @property
    def tracks(self) -> list[tuple[HistoryLine, ...]]:
        """The lines of each check of each point, oldest first."""
        tracks: dict[tuple[str, Point, str], list[HistoryLine]] = defaultdict(list)
        for line in sorted(self.lines, key=lambda line: line.time):
            tracks[line.track].append(line)
        return [tuple(tracks[track]) for track in sorted(tracks)]


def history_lines(report: Report, time: float) -> list[HistoryLine]:
    """Build the lines that a run leaves; `time` is its start in seconds since the epoch."""
    environment = report.environment
    run = datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
    setting = {name: str(environment[name]) for name in SETTING if environment.get(name)}
    cells = {Point.of(cell): cell for cell in report.cells}
    findings = by_check(report.findings)
    lines = []
    for verdict in report.verdicts:
        point, check = Point.of(verdict), verdict.check
        cell = cells.get(point)
        # JSON has finite numbers alone; figures may be text or lists, too.
        figures = {
            name: float(value)
            for name, value in verdict.figures.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        registered = find_check(check)
        output = registered.output if registered else ""
        facts = environment.get("pins", {}).get(point.pin, environment)
        line = verdict.model_dump() | {
            "schema": SCHEMA,
            "run": run,
            "time": time,
            "pin": point.pin or str(environment["pin"]),
            "series": str(facts["series"]),
            "setting": setting,
            "outcome": _outcome(verdict),
            "codes": sorted({finding.code for finding in findings.get((point, check), ())}),
            "figures": figures,
            "tree": str(environment.get("trees", {}).get(point.variant, "")),
            "inputs": cell.key if cell else "",
            "outputs": {output: cell.outputs[output]} if cell and output in cell.outputs else {},
        }
        lines.append(HistoryLine.model_validate(line))
    return lines


def append(path: Path, lines: Iterable[HistoryLine | AnchorLine]) -> None:
    """Append lines in one write, under a lock that other writers of the file take too."""
    text = "".join(line.model_dump_json(by_alias=True) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # incomplete: what we write must not become its end
                text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> History:
    """Read a history.

    Raises:
        BadInputError: if the file cannot be read, or holds lines of a newer version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error
    lines, anchor, damaged = [], None, []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            fields = json.loads(raw)
            if fields["schema"] != SCHEMA:
                raise BadInputError(
                    f"{path}:{number}: {fields['schema']} is not {SCHEMA}; read it with the "
                    "pp-harness that wrote it, or a newer one"
                )
            if fields["kind"] == "anchor":
                anchor = AnchorLine.model_validate(fields).time
            else:
                lines.append(HistoryLine.model_validate(fields))
        # pydantic's and json's errors are ValueErrors.
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged.append(number)
    return History(tuple(lines), anchor, tuple(damaged))


def _outcome(verdict: VerdictRecord) -> Literal["ok", "expected", "unexpected"]:
    if verdict.expected or verdict.verdict is Outcome.NOT_APPLICABLE:
        return "expected"
    return "ok" if verdict.good else "unexpected"
