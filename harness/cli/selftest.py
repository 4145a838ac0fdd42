"""`pp-harness selftest`: which check catches which seeded fault."""

import json
from dataclasses import replace
from pathlib import Path

import click

from ..engine.seeded import SeededChange, declared
from ..engine.settings import Profile
from ..errors import BadInputError
from ..selftest.run import QUESTIONS, run_selftest
from ..selftest.table import lines
from .paths import NEW_FILE, NEW_FOLDER, write_new


@click.command("selftest")
@click.option("--only", metavar="CLASS|NAME", multiple=True, help="these faults only (repeat)")
@click.option("--quick", is_flag=True, help="the subset of the CI: no questions, no engine twice")
@click.option("--json", "target", type=NEW_FILE, help="write the results here")
@click.option("--store", type=NEW_FOLDER, help="keep variant trees here")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    help="as --pp-dtype; what bfloat16 rounds away is left out there",
)
@click.option(
    "--profile",
    type=click.Choice(list(Profile)),
    help="run all under this profile (default: each under its own)",
)
@click.option("--pin", metavar="VERSION", help="release to seed them in; default pin if left out")
@click.option("--list", "listing", is_flag=True, help="list the faults and end")
def selftest(
    only: tuple[str, ...],
    quick: bool,
    target: Path | None,
    store: Path | None,
    dtype: str,
    profile: str | None,
    pin: str | None,
    listing: bool,
) -> None:
    """Seed faults into running engines and show which check catches what.

    Exit status 1 if a fault passes, a harmless change alarms, or too many are placed wrongly.
    """
    changes = select_changes(only, quick=quick)
    if profile is not None:
        changes = tuple(replace(change, profile=Profile(profile)) for change in changes)
    if listing:
        for change in changes:
            click.echo(
                f"{change.name:26} {change.kind:16} {change.model} PP={change.pp}: "
                f"{change.description}"
            )
        return
    report = run_selftest(
        changes,
        0 if quick else QUESTIONS,
        store,
        dtype,
        (pin,) if pin else (),
        lambda text: click.echo(text, err=True),
    )
    click.echo("\n".join(lines(report)))
    if target is not None:
        write_new(target, json.dumps(report.document(), indent=1) + "\n")
    raise SystemExit(0 if report.is_good else 1)


def select_changes(only: tuple[str, ...], *, quick: bool) -> tuple[SeededChange, ...]:
    """The changes of the classes or names in `only`, or all of them; with `quick` those of the CI.

    Raises:
        BadInputError: if one of `only` names nothing, or nothing of them is in the subset.
    """
    every = declared()
    for asked in only:
        if not any(asked in (change.name, change.kind) for change in every):
            kinds = ", ".join(dict.fromkeys(change.kind for change in every))
            raise BadInputError(f"--only {asked}: no fault and no class; classes are {kinds}")
    selected = tuple(
        change
        for change in every
        if (not only or change.name in only or change.kind in only) and (change.quick or not quick)
    )
    if not selected:
        raise BadInputError(f"--only {' '.join(only)} --quick: nothing of it is in the subset")
    return selected
