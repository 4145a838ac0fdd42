"""`pp-harness report`: what can be done with reports that are there already."""

from pathlib import Path

import click

from ..capture.store import Store
from ..checks.registry import check_names
from ..errors import BadInputError
from ..report.attribution import attribution_records
from ..report.files import PAGE, read_report, write_page, write_reports
from ..report.join import join_reports
from ..report.terminal import attribution_lines, verdict_table
from ..report.view import ReportView
from .trend import append, diff, trend

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def report() -> None:
    """Work on the reports of earlier runs; no engine is started."""


report.add_command(append)
report.add_command(diff)
report.add_command(trend)


@report.command()
@click.argument("folders", nargs=-1, required=True, type=_FOLDER, metavar="DIR...")
@click.option("--out", required=True, type=_FOLDER, help="The folder to write report.json into.")
@click.option(
    "--store",
    "stores",
    multiple=True,
    type=_FOLDER,
    help="A store of one of the machines, to be joined too (repeat).",
)
@click.option("--into", type=_FOLDER, help="The store that takes the captures of every --store.")
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
