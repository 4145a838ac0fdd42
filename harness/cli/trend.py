"""`pp-harness report append`, `trend` and `diff`: runs in a row, and what got worse."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import BadInputError
from ..report.files import read_report
from ..report.history import SCHEMA, AnchorLine, history_lines, read
from ..report.history import append as append_lines
from ..report.report_diff import diff_reports
from ..report.text import aligned, one_line
from ..report.trend import Trend, render_trend, trends

_FILE = click.Path(path_type=Path, dir_okay=False)
_REPORT = click.Path(path_type=Path)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.argument("file", type=_FILE)
def append(folder: Path, file: Path) -> None:
    """Append the report in DIR to the history FILE, as --pp-history does at the end of a run.

    For a report that `report merge` joined from shards.
    """
    append_lines(file, history_lines(read_report(folder), time.time()))


@click.command()
@click.argument("old", type=_REPORT)
@click.argument("new", type=_REPORT)
def diff(old: Path, new: Path) -> None:
    """Show what changed from the report OLD to NEW: verdicts, codes, figures, bits of outputs.

    OLD and NEW are folders that --pp-report wrote, or their report.json. Exit status: 0 nothing got
    worse, 1 something did, 2 the reports cannot be read or have no check in common.
    """
    result = diff_reports(read_report(old), read_report(new))
    for condition in result.conditions:
        click.echo(f"not the same {one_line(condition)}")
    for change in result.changes:
        click.echo(f"{change.effect:7}  {one_line(f'{change.name}: {change.message}')}")
    click.echo(f"{result.compared} checks compared, {result.worse} changes for the worse")
    if result.worse:
        raise SystemExit(1)


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
    "--html", "page", type=_FILE, metavar="PAGE", help="Write a page of each check's nights too."
)
def trend(file: Path, within: float, accept: str | None, page: Path | None) -> None:
    """Compare the last night in the history FILE with the last green one and the anchor.

    FILE is what --pp-history wrote. The anchor is each check's first green night, until somebody
    accepts other levels. Exit status: 0 as good as it was, 1 an alarm, 2 FILE cannot be used.
    """
    history = read(file)
    if not history.lines:
        raise BadInputError(f"{file}: holds no nights; a run with --pp-history {file} adds one")
    if accept is not None:
        newest = max(line.time for line in history.lines)
        append_lines(file, [AnchorLine(schema=SCHEMA, time=newest, reason=accept)])
        history = read(file)
    for number in history.damaged:
        click.echo(f"{file}:{number}: cannot be read (incomplete?), left out", err=True)
    tracks = trends(history, within)
    _print(tracks)
    if page is not None:
        try:
            page.write_text(render_trend(tracks), encoding="utf-8")
        except OSError as error:
            raise BadInputError(f"{page}: cannot be written: {error.strerror}") from error
        click.echo(page)
    if any(track.alarms for track in tracks):
        raise SystemExit(1)


def _print(tracks: Sequence[Trend]) -> None:
    """Print a row for each check that is judged, the alarms, and what is not judged any more."""
    current = [track for track in tracks if track.current]
    rows = [("check", "last", "nights", "figure", "anchor", "green", "now", "series and setting")]
    for track in current:
        anchor, green, now = ("-" if level is None else f"{level:.4g}" for level in track.levels)
        last = "ALARM" if track.alarms else track.last.state
        levels = (track.figure or "-", anchor, green, now)
        nights = str(len(track.lines))
        rows.append((track.last.name, last, nights, *levels, track.last.conditions))
    lines = [
        f"{code} {track.last.name}: {message}"
        for track in current
        for code, message in track.alarms
    ]
    lines += [
        f"not judged since {track.last.run}: {track.last.name}"
        for track in tracks
        if not track.current
    ]
    alarms = sum(len(track.alarms) for track in tracks)
    lines.append(f"{len(current)} checks, {alarms} {'alarm' if alarms == 1 else 'alarms'}")
    for line in (*aligned(rows), *map(one_line, lines)):
        click.echo(line)
