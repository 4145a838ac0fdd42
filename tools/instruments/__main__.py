"""`python -m tools.instruments NAME`: make an instrument from nothing."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import click

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
    with click.progressbar(
        length=1, label=f"making {name}", file=sys.stderr, item_show_func=_loss
    ) as bar:

        def show(step: int, steps: int, loss: float) -> None:
            bar.length = steps
            bar.update(step - bar.pos, loss)

        try:
            card = builder.build_instrument(recipe, out, on_progress=show)
        except HarnessError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"{out}: {json.dumps(card['measured'])}")


def _loss(loss: float | None) -> str | None:
    return None if loss is None else f"loss {loss:.4f}"


if __name__ == "__main__":
    main()
