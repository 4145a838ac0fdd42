"""`pp-harness check`: for the author of a model, before a change is pushed."""

import subprocess
import sys
from pathlib import Path

import click

from ..errors import BadInputError

# pytest's exit statuses that are verdicts; every other one means that there is none.
_VERDICTS = (0, 1)


@click.command()
@click.option(
    "--vllm",
    type=click.Path(path_type=Path),
    required=True,
    help="Checkout of vLLM; without --diff and --run a plain copy of its source will do.",
)
@click.option(
    "--diff",
    "revision",
    metavar="REV",
    help="Look only at model files that changed since the branch left REV, uncommitted changes "
    "included.",
)
@click.option(
    "--output-format",
    type=click.Choice(["text", "json", "sarif", "github"]),
    default="text",
    show_default=True,
    help="How the findings of the lint are written.",
)
@click.option(
    "--run",
    "with_run",
    is_flag=True,
    help="Also run a tiny random model of each changed architecture at PP 1, 2 and 4 on the CPU "
    "(minutes). Without --diff: changed since upstream/main, origin/main or main.",
)
@click.option(
    "--base-version",
    metavar="VERSION",
    help="With --run: the release that lends the checkout its compiled files (default: its "
    "nearest release tag).",
)
def check(
    vllm: Path, revision: str | None, output_format: str, with_run: bool, base_version: str | None
) -> None:
    """Check the pipeline-parallel contract of the model files of a vLLM checkout.

    Exit status: 0 nothing found, 1 findings, 2 bad input, or a model that could not be judged.
    """
    from .changed_models import lint_targets

    if base_version is not None and not with_run:
        raise BadInputError("--base-version is for --run; give both or neither")
    status = _lint(lint_targets(vllm, revision), output_format)
    if with_run:
        # The run prints for people: standard output has only what the format promises.
        status = max(status, _run(vllm, revision, base_version, to_stderr=output_format != "text"))
    raise SystemExit(status)


def _lint(paths: list[Path], output_format: str) -> int:
    from ..lint.analyse import lint_paths
    from ..lint.render import RENDERERS
    from ..lint.report import LintReport

    report = lint_paths(paths) if paths else LintReport((), files=0, analysed=0, classes=0)
    click.echo(RENDERERS[output_format](report))
    return report.status


def _run(vllm: Path, revision: str | None, base_version: str | None, *, to_stderr: bool) -> int:
    from .changed_models import (
        changed_model_files,
        changed_models,
        describe,
        shrink_models,
        suite_command,
    )

    root, names = changed_model_files(vllm, revision)
    if not names:
        click.echo("no model file changed: nothing to run", err=to_stderr)
        return 0
    shrunk = shrink_models(changed_models(root, names))
    command = suite_command(root, shrunk.checkpoints, base=revision, base_version=base_version)
    done = subprocess.run(command, check=False, stdout=sys.stderr if to_stderr else None)
    if shrunk.unavailable:
        click.echo(f"not run, no tiny configuration: {describe(shrunk.unavailable)}", err=to_stderr)
        return 2
    return done.returncode if done.returncode in _VERDICTS else 2
