"""`pp-harness selftest`: which check catches which seeded fault."""

import json
from pathlib import Path

import click

from ..errors import BadInputError
from ..selftest.catalogue import SEEDS, Seed


@click.command("selftest")
@click.option("--only", metavar="CLASS|NAME", multiple=True, help="these faults only (repeat)")
@click.option("--quick", is_flag=True, help="the subset of the CI, without questions")
@click.option("--json", "target", type=click.Path(path_type=Path), help="write the results here")
@click.option("--store", type=click.Path(path_type=Path), help="keep variant trees here")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="as --pp-dtype; what bfloat16 rounds away is left out there",
)
@click.option("--list", "listing", is_flag=True, help="list the faults and end")
def selftest(
    only: tuple[str, ...],
    quick: bool,
    target: Path | None,
    store: Path | None,
    dtype: str,
    listing: bool,
) -> None:
    """Seed faults into running engines and show which check catches what.

    Exit status 1 if a fault escapes, a harmless change alarms, or too many are placed wrongly.
    """
    seeds = chosen(only, quick=quick)
    if listing:
        for seed in seeds:
            click.echo(f"{seed.name:26} {seed.kind:16} {seed.model} PP={seed.pp}: {seed.what}")
        return
    from ..selftest.run import QUESTIONS, run_selftest
    from ..selftest.table import lines

    result = run_selftest(
        seeds, 0 if quick else QUESTIONS, store, dtype, lambda text: click.echo(text, err=True)
    )
    for line in lines(result):
        click.echo(line)
    if target is not None:
        target.write_text(json.dumps(result.document(), indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if result.is_good else 1)


def chosen(only: tuple[str, ...], *, quick: bool) -> tuple[Seed, ...]:
    """Return the seeds of the classes or names in `only`, or all of them.

    Raises:
        BadInputError: if one of them names nothing, or nothing is left of them.
    """
    for asked in only:
        if not any(asked in (seed.name, seed.kind) for seed in SEEDS):
            kinds = ", ".join(dict.fromkeys(seed.kind for seed in SEEDS))
            raise BadInputError(f"--only {asked}: no fault and no class; classes are {kinds}")
    seeds = tuple(
        seed
        for seed in SEEDS
        if (not only or seed.name in only or seed.kind in only) and (seed.quick or not quick)
    )
    if not seeds:
        raise BadInputError(f"--only {' '.join(only)} --quick: nothing of it is in the subset")
    return seeds
