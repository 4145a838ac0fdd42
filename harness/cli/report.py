"""`pp-harness report`: reports that are there already, joined, compared, and followed by nights."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from ..capture.store import Store
from ..checks.registry import check_names
from ..errors import BadInputError
from ..report.attribution import attribution_records
from ..report.files import PAGE, read_report, write_page, write_reports
from ..report.history import SCHEMA, AnchorLine, history_lines, read
from ..report.history import append as append_lines
from ..report.join import join_reports
from ..report.report_diff import diff_reports
from ..report.terminal import attribution_lines, verdict_table
from ..report.text import aligned, counted, one_line
from ..report.trend import Trend, render_trend, trends
from ..report.view import ReportView
from .paths import NEW_FILE, NEW_FOLDER, write_new

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def report() -> None:
    """Work on the reports of earlier runs; no engine is started."""


@report.command()
@click.argument("folders", nargs=-1, required=True, type=_FOLDER, metavar="DIR...")
@click.option("--out", required=True, type=NEW_FOLDER, help="The folder to write report.json into.")
@click.option(
    "--store",
    "stores",
    multiple=True,
    type=_FOLDER,
    help="A store of one of the machines, to be joined too (repeat).",
)
@click.option("--into", type=NEW_FOLDER, help="The store that takes the captures of every --store.")
def merge(
    folders: tuple[Path, ...], out: Path, stores: tuple[Path, ...], into: Path | None
) -> None:
    """Join the reports of a sweep that ran in shards (`--pp-shard I/N`), and their stores.

    DIR... are the folders given as --pp-report; report.html comes beside report.json. What each
    patch did is worked out anew, at PP=1 from the captures of --into. Exit status: 0 the whole run
    is good, 1 it is not, 2 the reports are not the shards of one sweep.
    """
    if bool(stores) != (into is not None):
        raise BadInputError("report merge: --store and --into go together")
    joined = join_reports({str(folder): read_report(folder) for folder in folders})
    taken = ""
    if into is not None:
        for folder in stores:
            if not folder.is_dir():
                raise BadInputError(f"{folder}: no store there")
        target = Store(into)
        count = sum(target.adopt(Store(folder)) for folder in stores)
        taken = f"{into}: {count} captures taken over"
        joined = joined.model_copy(update={"attribution": attribution_records(joined, target)})
    write_reports(joined, out)
    lines = [*verdict_table(joined.verdicts, check_names()), *attribution_lines(joined), taken]
    click.echo("\n".join(filter(None, lines)))
    if not ReportView(joined).good:
        raise SystemExit(1)


@report.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
def html(folder: Path) -> None:
    """Write report.html, one page for people, beside the report.json of DIR.

    The page holds all it needs and works without a network. Exit status: 0 written, 2 DIR holds no
    report that can be read, or cannot be written to.
    """
    record = read_report(folder)
    try:
        click.echo(write_page(record, folder))
    except OSError as error:
        raise BadInputError(f"{folder / PAGE}: cannot be written: {error.strerror}") from error


@report.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.argument("file", type=NEW_FILE)
def append(folder: Path, file: Path) -> None:
    """Append the report in DIR to the history FILE, as --pp-history does at the end of a run.

    For a report that `report merge` joined from shards.
    """
    append_lines(file, history_lines(read_report(folder), time.time()))


@report.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
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


@report.command()
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
    "--html", "page", type=NEW_FILE, metavar="PAGE", help="Write a page of each check's nights too."
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
    _print_trends(tracks)
    if page is not None:
        write_new(page, render_trend(tracks))
        click.echo(page)
    if any(track.alarms for track in tracks):
        raise SystemExit(1)


def _print_trends(tracks: Sequence[Trend]) -> None:
    """Print a row for each check that is judged, the alarms, and what is not judged any more."""
    rows = [("check", "last", "nights", "figure", "anchor", "green", "now", "series and setting")]
    alarms, gone = [], []
    for track in tracks:
        last = track.last
        if not track.current:
            gone.append(f"not judged since {last.run}: {last.name}")
            continue
        anchor, green, now = ("-" if level is None else f"{level:.4g}" for level in track.levels)
        state = "ALARM" if track.alarms else last.state
        levels = track.figure or "-", anchor, green, now
        rows.append((last.name, state, str(len(track.lines)), *levels, last.conditions))
        alarms += [f"{code} {last.name}: {message}" for code, message in track.alarms]
    count = f"{len(rows) - 1} checks, {counted(len(alarms), 'alarm')}"
    for line in (*aligned(rows), *map(one_line, (*alarms, *gone, count))):
        click.echo(line)
