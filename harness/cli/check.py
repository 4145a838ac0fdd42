"""`pp-harness check`: for the author of a model, before a change is pushed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import BadInputError
from ..lint.analyse import lint_change, lint_paths
from ..lint.report import LintReport
from ..source.checkout import check_vllm_tree
from ..source.environments import find_vllm
from ..source.pin import load_pins
from .changed_models import changed_models, described, models_to_run, read_change, suite_command
from .findings import FindingOutput, finding_options

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
    help="Judge the model files that changed since the branch left REV, uncommitted changes "
    "included, with what they touch; only what the change brings decides the status.",
)
@finding_options
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
    help="With --run: the release that lends the checkout its compiled files (default: the newest "
    "pin that is not newer than its base).",
)
def check(
    vllm: Path, revision: str | None, with_run: bool, base_version: str | None, **output: Any
) -> None:
    """Check the pipeline-parallel contract of the model files of a vLLM checkout.

    With --diff a changed model is judged with the models that import it and those that it is made
    of. Exit status: 0 nothing found, 1 findings, 2 bad input, or a model that could not be judged.
    """
    writer = FindingOutput(**output)
    writer.check()
    if base_version is not None and not with_run:
        raise BadInputError("--base-version is for --run; give both or neither")
    status = writer.finish(_lint(vllm, revision))
    if with_run:
        # The run prints for people: standard output has only what the format promises.
        to_stderr = writer.output_format != "text"
        status = max(status, _run(vllm, revision, base_version, to_stderr=to_stderr))
    raise SystemExit(status)


def _lint(vllm: Path, revision: str | None) -> LintReport:
    if revision is None:
        check_vllm_tree(vllm)
        return lint_paths([vllm])
    change = read_change(vllm, revision)
    # As the user names the folder, so that findings can be clicked.
    shown = vllm if vllm.resolve() == change.root.resolve() else change.root
    before = {shown.absolute() / name: text for name, text in change.before.items()}
    return lint_change(shown, change.names, before=before)


def _run(vllm: Path, revision: str | None, base_version: str | None, *, to_stderr: bool) -> int:
    change = read_change(vllm, revision)
    if not change.names:
        click.echo("no model file changed: nothing to run", err=to_stderr)
        return 0
    release = find_vllm(load_pins().get(base_version), "cpu")
    chosen = models_to_run(changed_models(change.root, change.names), change.root, release)
    command = suite_command(change.root, chosen.models, base=revision, base_version=base_version)
    done = subprocess.run(command, check=False, stdout=sys.stderr if to_stderr else None)
    if chosen.not_run:
        click.echo(f"not run: {described(chosen.not_run)}", err=to_stderr)
        return 2
    return done.returncode if done.returncode in _VERDICTS else 2
