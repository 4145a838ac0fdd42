"""`pp-harness lint`: the command line of the static lint."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.errors import BadInputError


def _explain(context: click.Context, _: click.Parameter, code: str | None) -> None:
    if code is None or context.resilient_parsing:
        return
    from harness.lint.catalogue import RULES, explain

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
    "--output-format",
    type=click.Choice(["text", "json", "sarif", "github"]),
    default="text",
    show_default=True,
    help="How the findings are written.",
)
@click.option(
    "--vllm",
    type=click.Path(path_type=Path),
    help="vLLM checkout or package in which files outside of one look up their imports.",
)
@click.option("--jobs", type=click.IntRange(1), help="Processes to use (default: cores, up to 4).")
@click.option(
    "--explain",
    metavar="CODE",
    callback=_explain,
    expose_value=False,
    is_eager=True,
    help="Explain a rule (or `all`) and exit.",
)
def lint(paths: tuple[Path, ...], output_format: str, vllm: Path | None, jobs: int | None) -> None:
    """Check the pipeline-parallel contract of model files without running them.

    PATHS are model files, folders, or the root of a vLLM tree. Exit status: 0 no errors or
    warnings, 1 errors or warnings (info never counts), 2 bad input.
    """
    from harness.lint.analyse import lint_paths
    from harness.lint.render import RENDERERS

    try:
        report = lint_paths(paths, vllm=vllm, jobs=jobs)
    except BadInputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(RENDERERS[output_format](report))
    if any(f.code == "PP901" for f in report.findings):
        sys.exit(2)
    sys.exit(1 if report.failing else 0)
