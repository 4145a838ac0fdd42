"""The command `pp-harness`: a thin, lazy index of the commands that the packages define."""

import importlib
import sys

import click

from .. import __version__
from ..errors import BadInputError

# Each command, in the module of its name, with a line of help: it stands here so that `--help`
# imports none of the packages behind it.
_COMMANDS = {
    "series": "Check and list patch series.",
    "pin": "Environments of vLLM releases: make, list, lock.",
    "model": "Instruments, tiny models and layer splits.",
    "census": "Run every architecture of a release that claims PP, each as a tiny model.",
    "lint": "Check the tensor-key contract of model files, statically.",
    "check": "Check the model files of a vLLM checkout.",
    "store": "List and clear the captures on disk.",
    "report": "Work on the reports of earlier runs.",
    "selftest": "Seed faults, show which check catches what.",
    "suites": "Print the folder with the pytest suites.",
}


class _LazyGroup(click.Group):
    """A group that imports a command only when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pp-harness")
def cli() -> None:
    """Show, with evidence, whether pipeline parallelism changes what a model computes.

    The sweep itself is a pytest run: pytest suites/ --pp 4. Exit status: 0 nothing found,
    1 findings, 2 bad input.
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line; bad input ends in one line on stderr and status 2."""
    try:
        cli.main(args=argv, prog_name="pp-harness")
    except BadInputError as error:
        click.echo(f"pp-harness: error: {error}", err=True)
        sys.exit(2)
