"""`pp-harness report`: what can be done with reports that are there already."""

from pathlib import Path

import click

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

    DIR... are the folders given as --pp-report; report.html comes beside report.json. Exit
    status: 0 every verdict passes or is expected, 1 one does not, 2 the reports are not the
    shards of one sweep.
    """
    from ..errors import BadInputError
    from ..report.join import join_reports, read_report
    from ..report.table import verdict_table
    from ..report.write import write_reports

    if bool(stores) != (into is not None):
        raise BadInputError("report merge: --store and --into go together")
    joined = join_reports({str(folder): read_report(folder) for folder in folders})
    write_reports(joined, out)
    for line in verdict_table(joined.verdicts):
        click.echo(line)
    if into is not None:
        _join_stores(stores, into)
    if not all(one.verdict == "pass" or one.expected for one in joined.verdicts):
        raise SystemExit(1)


@report.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
def html(folder: Path) -> None:
    """Write report.html, one page for people, beside the report.json of DIR.

    The page holds all it needs and works without a network. Exit status: 0 written, 2 DIR holds no
    report that can be read, or cannot be written to.
    """
    from ..errors import BadInputError
    from ..report.html import PAGE, render_page
    from ..report.join import read_report

    path = folder / PAGE
    try:
        path.write_text(render_page(read_report(folder)), encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{path}: cannot be written: {error.strerror}") from error
    click.echo(path)


def _join_stores(stores: tuple[Path, ...], into: Path) -> None:
    from ..capture.store import Store
    from ..errors import BadInputError

    for folder in stores:
        if not folder.is_dir():
            raise BadInputError(f"{folder}: no store there")
    target = Store(into)
    taken = sum(target.adopt(Store(folder)) for folder in stores)
    click.echo(f"{into}: {taken} captures taken over")
