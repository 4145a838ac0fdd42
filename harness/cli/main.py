"""The command `pp-harness`: a thin, lazy index of the commands that the packages define."""

import importlib
import sys
from typing import Any

import click

from .. import __version__
from ..errors import BadInputError

# name -> (module:attribute, one line of help). The help stands here so that `--help`
# imports none of the packages behind it.
_COMMANDS = {
    "series": ("harness.cli.series:series", "Check, list and show patch series."),
    "pin": ("harness.cli.pin:pin", "Environments of vLLM releases: make, list, lock."),
    "model": ("harness.cli.model:model", "Instruments, tiny models and layer splits."),
    "lint": ("harness.cli.lint:lint", "Check the tensor-key contract of model files, statically."),
    "check": ("harness.cli.check:check", "Check the model files of a vLLM checkout."),
    "store": ("harness.cli.store:store", "List and clear the captures on disk."),
    "report": ("harness.cli.report:report", "Work on the reports of earlier runs."),
    "selftest": ("harness.cli.selftest:selftest", "Seed faults, show which check catches what."),
    "suites": ("harness.cli.suites:suites", "Print the folder with the pytest suites."),
}


class _LazyGroup(click.Group):
    """A group that imports a command only when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pp-harness")
def cli() -> None:
    """Show, with evidence, whether pipeline parallelism changes what a model computes.

    The sweep itself is a pytest run: pytest suites/ --pp 4. Exit status: 0 nothing found,
    1 findings, 2 bad input.
    """


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; bad input ends in one line on stderr and status 2."""
    try:
        return cli.main(args=argv, prog_name="pp-harness", standalone_mode=True)
    except BadInputError as error:
        click.echo(f"pp-harness: error: {error}", err=True)
        sys.exit(2)
