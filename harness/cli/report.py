"""`pp-harness report`: what can be done with reports that are there already."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .trend import append, diff, trend

if TYPE_CHECKING:
    from ..capture.store import Store

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
    from ..checks.registry import check_names
    from ..errors import BadInputError
    from ..report.attribution import attribution_records
    from ..report.files import read_report, write_reports
    from ..report.join import join_reports
    from ..report.terminal import attribution_lines, verdict_table
    from ..report.view import ReportView

    if bool(stores) != (into is not None):
        raise BadInputError("report merge: --store and --into go together")
    joined = join_reports({str(folder): read_report(folder) for folder in folders})
    taken = ""
    if into is not None:
        store, count = _join_stores(stores, into)
        taken = f"{into}: {count} captures taken over"
        joined = joined.model_copy(update={"attribution": attribution_records(joined, store)})
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
    from ..errors import BadInputError
    from ..report.files import PAGE, read_report, write_page

    report = read_report(folder)
    try:
        click.echo(write_page(report, folder))
    except OSError as error:
        raise BadInputError(f"{folder / PAGE}: cannot be written: {error.strerror}") from error


def _join_stores(stores: tuple[Path, ...], into: Path) -> "tuple[Store, int]":
    """Take the captures of several stores into one; return it, and how many it took."""
    from ..capture.store import Store
    from ..errors import BadInputError

    for folder in stores:
        if not folder.is_dir():
            raise BadInputError(f"{folder}: no store there")
    target = Store(into)
    return target, sum(target.adopt(Store(folder)) for folder in stores)
