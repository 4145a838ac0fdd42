"""`python -m tools.instruments NAME`: make an instrument from nothing."""

import json
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from harness.errors import HarnessError

from . import build as builder
from .recipes import RECIPES


@click.command()
@click.argument("name", type=click.Choice(tuple(RECIPES)))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write; by default ./instrument-NAME. An older instrument there is replaced.",
)
@click.option("--seed", type=int, help="Seed of weights and batches; by default the shipped one's.")
def main(name: str, out: Path | None, seed: int | None) -> None:
    """Make an instrument from nothing, on one CPU core, and write its checkpoint.

    Needs torch and transformers (extra `cpu` or `cuda`) and, where it is trained, several minutes.
    Nothing is written if the result misses the stated accuracy, or hardly sees its own weights.
    """
    out = out or Path(f"instrument-{name}")
    recipe = RECIPES[name] if seed is None else replace(RECIPES[name], seed=seed)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, "loss {task.fields[loss]:.4f}", console=Console(stderr=True)) as bar:
        task = bar.add_task(f"making {name}", total=None, loss=float("nan"))

        def show(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, loss=loss)

        try:
            card = builder.build_instrument(recipe, out, on_progress=show)
        except HarnessError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"{out}: {json.dumps(card['measured'])}")


if __name__ == "__main__":
    main()
