"""`pp-harness suites`: the folder of the pytest suites, for use in a shell."""

import click

from ..assets import suites_dir


@click.command()
def suites() -> None:
    """Print the folder with the pytest suites.

    In a checkout that is `suites/`; an installed harness carries its own copy:

        pytest "$(pp-harness suites)" --pp 4
    """
    click.echo(suites_dir())
