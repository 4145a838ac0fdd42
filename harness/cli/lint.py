"""`pp-harness lint`: the command line of the static lint."""

import sys
from pathlib import Path
from typing import Any

import click

from ..errors import BadInputError
from ..lint.analyse import lint_change, lint_paths
from ..lint.rules import RULES, explain
from .findings import FindingOutput, finding_options


def _explain(context: click.Context, _: click.Parameter, code: str | None) -> None:
    if code is None or context.resilient_parsing:
        return
    if code.lower() == "all":
        click.echo("\n".join(explain(rule) for rule in RULES))
    elif code.upper() in RULES:
        click.echo(explain(code))
    else:
        known = ", ".join(RULES)
        click.echo(f"error: no rule {code}; there are {known}", err=True)
        context.exit(2)
    context.exit(0)


@click.command(name="lint")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--vllm",
    type=click.Path(path_type=Path),
    help="vLLM checkout or package in which files outside of one look up their imports.",
)
@click.option(
    "--changed",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A changed file of the tree PATHS: lint it with what imports it and what it is made of. "
    "Only findings of the change decide the status.",
)
@finding_options
@click.option("--jobs", type=click.IntRange(1), help="Processes to use (default: cores, up to 2).")
@click.option(
    "--explain",
    metavar="CODE",
    callback=_explain,
    expose_value=False,
    is_eager=True,
    help="Explain a rule (or `all`) and exit.",
)
def lint(
    paths: tuple[Path, ...],
    vllm: Path | None,
    changed: tuple[Path, ...],
    jobs: int | None,
    **output: Any,
) -> None:
    """Check the pipeline-parallel contract of model files without running them.

    PATHS are model files, folders, or the root of a vLLM tree. Exit status: 0 no errors or
    warnings, 1 errors or warnings (info never counts), 2 bad input.
    """
    writer = FindingOutput(**output)
    try:
        writer.check()
        if changed and len(paths) != 1:
            raise BadInputError("--changed names files of one tree; give one path")
        if changed:
            files = [path.absolute() for path in changed]
            report = lint_change(paths[0], files, vllm=vllm, jobs=jobs)
        else:
            report = lint_paths(paths, vllm=vllm, jobs=jobs)
        status = writer.finish(report)
    except BadInputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    sys.exit(status)
