"""`pp-harness report append` and `trend`: nights in a row, and what got worse."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import BadInputError

if TYPE_CHECKING:
    from ..report.trend import TrackTrend

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.argument("file", type=_FILE)
def append(folder: Path, file: Path) -> None:
    """Append the report in DIR to the history FILE, as --pp-history does at the end of a run.

    For a report that `report merge` joined from shards.
    """
    from ..report.files import read_report
    from ..report.history import append as append_lines
    from ..report.history import history_lines

    append_lines(file, history_lines(read_report(folder), time.time()))


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--within",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    metavar="DAYS",
    help="Judge what was judged at most this long before the newest line.",
)
@click.option(
    "--accept",
    metavar="REASON",
    help="Append a new anchor: the levels as they are now, and why they are right.",
)
@click.option(
    "--html",
    "page",
    type=_FILE,
    metavar="PAGE",
    help="Write a page too: drift, accuracy and seconds over the nights.",
)
def trend(file: Path, within: float, accept: str | None, page: Path | None) -> None:
    """Hold the last night in the history FILE against the last green one and the anchor.

    FILE is what --pp-history wrote. The anchor is each check's first green night, until somebody
    accepts other levels. Exit status: 0 as good as it was, 1 an alarm, 2 FILE cannot be used.
    """
    from ..report.history import SCHEMA, AnchorLine, read
    from ..report.history import append as append_lines
    from ..report.trend import trends

    history = read(file)
    if not history.lines:
        raise BadInputError(f"{file}: holds no nights; a run with --pp-history {file} adds one")
    if accept is not None:
        newest = max(line.time for line in history.lines)
        append_lines(file, [AnchorLine(schema=SCHEMA, time=newest, reason=accept)])
        history = read(file)
    found = trends(history, within)
    for number in history.damaged:
        click.echo(f"{file}:{number}: cannot be read (cut short?), left out", err=True)
    _print(found)
    if page is not None:
        _write_page(page, found)
    if any(one.alarms for one in found):
        raise SystemExit(1)


def _write_page(page: Path, found: "Sequence[TrackTrend]") -> None:
    from ..report.trend_page import render_trend

    try:
        page.write_text(render_trend(found), encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{page}: cannot be written: {error.strerror}") from error
    click.echo(page)


def _print(found: "Sequence[TrackTrend]") -> None:
    """Print a row for each check that is judged, the alarms, and what is not judged any more."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("check", "pin", "last", "figure"):
        table.add_column(title, no_wrap=True)
    for title in ("nights", "first", "before", "now"):
        table.add_column(title, justify="right", no_wrap=True)
    current = [one for one in found if one.current]
    for one in current:
        values = one.values
        table.add_row(
            one.track.name,
            one.track.pin,
            "ALARM" if one.alarms else one.lines[-1].outcome,
            one.figure or "-",
            str(len(one.lines)),
            *(_number(value) for value in (values[0], values[-2:][0], values[-1])),
        )
    # Not the terminal's width: a table that a job's log wraps cannot be read.
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)
    for one in current:
        for alarm in one.alarms:
            click.echo(f"{alarm.code} {one.track.name}: {alarm.message}")
    for one in found:
        if not one.current:
            click.echo(f"not judged since {one.lines[-1].run}: {one.track.name}")
    alarms = sum(len(one.alarms) for one in found)
    click.echo(f"{len(current)} checks, {alarms} {'alarm' if alarms == 1 else 'alarms'}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
