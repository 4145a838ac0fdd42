"""`pp-harness series`: check and list patch series."""

from pathlib import Path

import click

from ..assets import patches_dir
from ..errors import BadInputError
from ..report.text import counted
from ..source.environments import find_vllm
from ..source.pin import Pin, load_pins
from ..source.series import ORDER_FILE, Series, header_problems, load_series
from ..source.tree import check_applies

_DIRECTORY = click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path)
)
_PIN = click.option(
    "--pin", "version", metavar="VERSION", help="The vLLM release; the default pin if left out."
)


@click.group()
def series() -> None:
    """Check and list patch series.

    A series is a folder with an order file named `series` and the patches that it lists. Without
    DIR the commands work on the series that the harness ships.
    """


@series.command()
@_DIRECTORY
@_PIN
@click.option(
    "--static", is_flag=True, help="Check the files alone; the release need not be installed."
)
def lint(directory: Path | None, version: str | None, static: bool) -> None:
    """Check order file, headers, and that each prefix applies exactly to the installed release.

    Exit status: 0 sound, 1 a header lacks something, 2 unusable.
    """
    pin = load_pins().get(version)
    problems: list[str] = []
    for each in _load(directory, pin):
        problems += [problem for patch in each.patches for problem in header_problems(patch)]
        prefixes = "not tried"
        if not static:
            unpinned = check_applies(each, pin, find_vllm(pin))
            prefixes = f"{len(each.patches) + 1} prefixes apply to vLLM {pin.version}"
            for name in unpinned:
                click.echo(f"{each.path}: note: pins.toml has no digest of {name}; RECORD agrees")
        click.echo(f"{each.path}: {counted(len(each.patches), 'patch')}, {prefixes}")
    for problem in problems:
        click.echo(problem)
    if problems:
        click.echo(counted(len(problems), "problem"))
        raise SystemExit(1)


@series.command(name="list")
@_DIRECTORY
def list_(directory: Path | None) -> None:
    """List each series, its variants and the patch that each of them adds."""
    for each in _load(directory, None):
        click.echo(each.name)
        for variant in each.variants():
            added = variant.patches[-1].name if variant.patches else "(no patch)"
            click.echo(f"  {variant.name:<12} {added}")


def _load(directory: Path | None, pin: Pin | None) -> list[Series]:
    """Load the series in `directory`; without it, the pin's own, or all that are shipped."""
    if directory is not None:
        return [load_series(directory)]
    if pin is not None:
        return [load_series(patches_dir() / pin.series)]
    shipped = sorted(order.parent for order in patches_dir().glob(f"*/{ORDER_FILE}"))
    if not shipped:
        raise BadInputError(f"{patches_dir()}: no series in this folder")
    return [load_series(folder) for folder in shipped]
