"""The history of nightly runs: an append-only file, one JSON line per point and check.

Several jobs may append to one file at a time. A line that a dying writer cut short is left where
it is, and said; a line of a newer version is refused, since to skip it would lose a night.
"""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from ..checks.registry import find_check
from ..errors import BadInputError
from ..plan.options import SETTINGS
from .drift import Night
from .schema import CellRecord, Report, VerdictRecord

SCHEMA = "pp-harness-history/1"
# What is the same for all points of a run and makes its figures comparable with another's.
_SETTING = ("device", "gsm8k", "gsm8k_limit", *SETTINGS)
# The phases in which the engine works: not the import, which a server does once for many cells.
_WORK = ("engine", "probes", "gsm8k")


class _Line(BaseModel):
    # Not "forbid": within version 1 fields are added, and an older reader passes over them.
    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_: str = Field(default=SCHEMA, alias="schema")


class HistoryLine(_Line):
    """One check of one point in one run; `run` is its start in UTC, `time` the same as epoch."""

    kind: Literal["check"] = "check"
    run: str
    time: float
    pin: str
    series: str
    setting: dict[str, str]
    variant: str
    model: str
    pp: int
    tp: int = 1
    profile: str = "parity"
    check: str
    verdict: str
    outcome: Literal["ok", "expected", "unexpected"]
    summary: str
    codes: list[str] = Field(default_factory=list)
    figures: dict[str, float] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)
    tree: str = ""
    inputs: str = ""
    outputs: dict[str, str] = Field(default_factory=dict)

    @property
    def track(self) -> "Track":
        """Return what this line is a night of."""
        setting = tuple(sorted(self.setting.items()))
        where = (self.variant, self.model, self.pp, self.tp, self.profile)
        return Track(self.pin, self.series, setting, *where, self.check)

    @property
    def night(self) -> Night:
        """Return the line as the comparison takes it."""
        return Night(
            run=self.run,
            time=self.time,
            good=self.outcome != "unexpected",
            green=self.outcome == "ok",
            summary=self.summary,
            figures=self.figures,
            inputs=self.inputs,
            # Under stress the batches differ from run to run, and so may the bits.
            outputs=self.outputs if self.profile == "parity" else {},
        )


class AnchorLine(_Line):
    """A person accepts the levels as they were at `time` (epoch) and says why: the new anchor."""

    kind: Literal["anchor"] = "anchor"
    time: float
    reason: str


@dataclass(frozen=True, order=True)
class Track:
    """One check of one point over the nights, under one setting."""

    pin: str
    series: str
    setting: tuple[tuple[str, str], ...]
    variant: str
    model: str
    pp: int
    tp: int
    profile: str
    check: str

    @property
    def name(self) -> str:
        """Return the track in words, without what is at its default."""
        extras = [self.profile] if self.profile != "parity" else []
        extras += [f"tp{self.tp}"] if self.tp > 1 else []
        return " ".join([f"{self.check}[{self.variant}-{self.model}-pp{self.pp}]", *extras])


@dataclass(frozen=True)
class History:
    """A file read back: its lines, the anchor in force, and the numbers of unreadable lines."""

    lines: tuple[HistoryLine, ...]
    anchor: float | None
    damaged: tuple[int, ...]

    @property
    def tracks(self) -> dict[Track, list[HistoryLine]]:
        """Return the lines of each track, oldest first."""
        found: dict[Track, list[HistoryLine]] = {}
        for line in sorted(self.lines, key=lambda line: line.time):
            found.setdefault(line.track, []).append(line)
        return found


def history_lines(report: Report, time: float) -> list[HistoryLine]:
    """Return the lines that a run leaves; `time` is its start in seconds since the epoch."""
    environment = report.environment
    setting = {name: str(environment[name]) for name in _SETTING if environment.get(name)}
    run = datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
    cells = {_place(cell): cell for cell in report.cells}
    lines = []
    for verdict in report.verdicts:
        candidate = cells.get(_place(verdict))
        baseline = cells.get(_place(verdict.model_copy(update={"pp": 1})))
        same_place = [f for f in report.findings if (*_place(f), f.check) == _check(verdict)]
        seconds = _seconds(candidate, baseline) if verdict.check == "engine" else {}
        outputs = _outputs(verdict.check, candidate)
        lines.append(
            HistoryLine(
                schema=SCHEMA,
                run=run,
                time=time,
                pin=verdict.pin or str(environment["pin"]),
                series=str(environment.get("pins", {}).get(verdict.pin, environment)["series"]),
                setting=setting,
                variant=verdict.variant,
                model=verdict.model,
                pp=verdict.pp,
                tp=verdict.tp,
                profile=verdict.profile,
                check=verdict.check,
                verdict=verdict.verdict,
                outcome=_outcome(verdict),
                summary=verdict.reason or verdict.summary,
                codes=sorted({finding.code for finding in same_place}),
                figures={**_numbers(verdict.figures), **_ratio(seconds)},
                seconds=seconds,
                tree=str(environment.get("trees", {}).get(verdict.variant, "")),
                inputs=candidate.key if candidate else "",
                outputs=outputs,
            )
        )
    return lines


def append(path: Path, lines: Iterable[_Line]) -> None:
    """Append lines in one write, under a lock that other writers of the file take too."""
    text = "".join(line.model_dump_json(by_alias=True) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # cut short: what we write must not become its tail
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
    lines: list[HistoryLine] = []
    anchor: float | None = None
    damaged: list[int] = []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            fields = json.loads(raw)
            schema = fields["schema"]
            if schema != SCHEMA:
                raise BadInputError(
                    f"{path}:{number}: {schema} is not {SCHEMA}; read it with the pp-harness that "
                    "wrote it, or a newer one"
                )
            if fields["kind"] == "anchor":
                anchor = AnchorLine.model_validate(fields).time
            else:
                lines.append(HistoryLine.model_validate(fields))
        except (
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ):  # pydantic's errors are ValueErrors
            damaged.append(number)
    return History(tuple(lines), anchor, tuple(damaged))


def _place(record: Any) -> tuple[str, str, str, int, int, str]:
    return record.pin, record.variant, record.model, record.pp, record.tp, record.profile


def _check(verdict: VerdictRecord) -> tuple[Any, ...]:
    return (*_place(verdict), verdict.check)


def _outcome(verdict: VerdictRecord) -> Literal["ok", "expected", "unexpected"]:
    if verdict.expected:
        return "expected"
    # A pass with a reason is a cured finding, whose entry is still there.
    return "ok" if verdict.verdict == "pass" and not verdict.reason else "unexpected"


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures that are finite numbers; JSON has no others."""
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _seconds(candidate: CellRecord | None, baseline: CellRecord | None) -> dict[str, float]:
    """Return the engine's seconds here and at PP=1, if this run started both; else nothing."""
    if candidate is None or baseline is None or not (candidate.fresh and baseline.fresh):
        return {}
    both = {"candidate": candidate, "baseline": baseline}
    return {
        name: round(sum(cell.seconds.get(phase, 0.0) for phase in _WORK), 3)
        for name, cell in both.items()
    }


def _ratio(seconds: dict[str, float]) -> dict[str, float]:
    whole = seconds and all(seconds.values())
    return {"seconds_ratio": seconds["candidate"] / seconds["baseline"]} if whole else {}


def _outputs(check: str, candidate: CellRecord | None) -> dict[str, str]:
    """Return the digest of what the check looked at, if this run made it."""
    registered = find_check(check)
    name = registered.output if registered else ""
    if not name or candidate is None or not candidate.fresh or name not in candidate.outputs:
        return {}
    return {name: candidate.outputs[name]}
