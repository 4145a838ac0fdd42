"""The options by which commands of the lint write their findings, and what they do."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..errors import BadInputError
from ..lint import baseline as known
from ..lint.render import RENDERERS
from ..lint.report import LintReport

_OPTIONS = (
    click.option(
        "--output-format",
        type=click.Choice(["text", "json", "sarif", "github"]),
        default="text",
        show_default=True,
        help="How the findings of the lint are written.",
    ),
    click.option(
        "--baseline",
        type=click.Path(path_type=Path),
        help="A file of known findings, which do not decide the status.",
    ),
    click.option(
        "--write-baseline",
        is_flag=True,
        help="Write what is found to --baseline, in place of reporting it.",
    ),
    click.option(
        "--all", "everything", is_flag=True, help="Also show the findings that do not count."
    ),
    click.option("-v", "--verbose", is_flag=True, help="Also show info, which never counts."),
)


@dataclass(frozen=True)
class FindingOutput:
    """The values of the options, by their names."""

    output_format: str = "text"
    baseline: Path | None = None
    write_baseline: bool = False
    everything: bool = False
    verbose: bool = False

    def check(self) -> None:
        """Refuse options that do not go together, before anything is linted.

        Raises:
            BadInputError: `--write-baseline` has no file to write.
        """
        if self.write_baseline and self.baseline is None:
            raise BadInputError("--write-baseline says what to do with --baseline FILE; give both")

    def finish(self, report: LintReport) -> int:
        """Print the report, or write the baseline, and return the exit status.

        Raises:
            BadInputError: The baseline cannot be read, or is none.
        """
        # The process ends here: its last look for garbage, in syntax trees, would take 0.3 s.
        gc.freeze()
        if self.baseline is not None and self.write_baseline:
            count = known.write_baseline(self.baseline, report.failing)
            # Standard output stays what the format promises.
            to_stderr = self.output_format != "text"
            click.echo(f"{count} findings are known from now on: {self.baseline}", err=to_stderr)
            return 2 if report.unreadable else 0
        if self.baseline is not None:
            report = known.compared(report, self.baseline)
        render = RENDERERS[self.output_format]
        click.echo(render(report.shown(verbose=self.verbose, everything=self.everything)))
        return report.status


def finding_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options whose values `FindingOutput` takes by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
