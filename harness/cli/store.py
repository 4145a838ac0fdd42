"""`pp-harness store`: list, check and clear the captures on disk."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
from filelock import Timeout

from ..assets import default_store
from ..capture.record import Capture
from ..capture.store import Store, damage
from ..errors import BadInputError
from ..report.text import aligned

_DAY = 86400.0
_STORE = click.option(
    "--store",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder given as --pp-store; by default the user's cache folder.",
)


@dataclass(frozen=True)
class _Kept:
    """A capture on disk: `capture` is None where its manifest cannot be read."""

    key: str
    folder: Path
    capture: Capture | None

    @property
    def days(self) -> float:
        return (time.time() - self.folder.stat().st_mtime) / _DAY

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @cached_property
    def damage(self) -> str | None:
        return damage(self.folder)


@click.group()
def store() -> None:
    """List, check and clear the captures on disk.

    A capture is what one engine left: contracts, logits and answers, named by a digest of all
    that can change them. Removing one costs a new start of its engine.
    """


@store.command("ls")
@_STORE
def list_captures(root: Path | None) -> None:
    """List captures, oldest first."""
    opened = _open(root)
    rows = [("key", "cell", "status", "days", "seconds", "MB")]
    captures = sorted(_captures(opened), key=lambda kept: -kept.days)
    for kept in captures:
        manifest = kept.capture.manifest if kept.capture else None
        cell = manifest.cell.id if manifest else "?"
        status = manifest.status if manifest else "unreadable"
        seconds = f"{manifest.seconds['total']:.0f}" if manifest else "?"
        size = f"{kept.size / 1e6:.1f}"
        rows.append((kept.key[:12], cell, status, f"{kept.days:.1f}", seconds, size))
    if captures:
        click.echo("\n".join(aligned(rows)))
    click.echo(f"{opened.root}: {_count(len(captures))}")


@store.command()
@_STORE
def verify(root: Path | None) -> None:
    """Compare the files of every capture with its manifest.

    Exit status: 0 all whole, 1 some are damaged. A sweep treats a damaged capture as absent and
    makes it again; `gc --damaged` removes it now.
    """
    opened = _open(root)
    captures = _captures(opened)
    damaged = [kept for kept in captures if kept.damage]
    for kept in damaged:
        click.echo(f"{kept.key}: {kept.damage}")
    click.echo(f"{opened.root}: {_count(len(captures))}, {len(damaged)} damaged")
    if damaged:
        raise SystemExit(1)


@store.command()
@_STORE
@click.option(
    "--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Captures made earlier."
)
@click.option("--damaged", is_flag=True, help="Captures whose files differ from their manifest.")
@click.option("--all", "everything", is_flag=True, help="Every capture.")
def gc(root: Path | None, older_than: float | None, damaged: bool, everything: bool) -> None:
    """Remove captures, and what runs that died left half done.

    A capture that another run is making or waits for is left alone.
    """
    if older_than is None and not damaged and not everything:
        raise BadInputError("gc: say what to remove: --older-than DAYS, --damaged or --all")
    opened = _open(root)
    removed = freed = 0
    for kept in _captures(opened):
        old = older_than is not None and kept.days > older_than
        if not (everything or old or (damaged and kept.damage)):
            continue
        size = kept.size
        try:
            with opened.lock(kept.key).acquire(blocking=False):
                opened.remove(kept.key)
        except Timeout:
            click.echo(f"{kept.key}: in use, left alone")
            continue
        removed += 1
        freed += size
    opened.clear_workspaces()
    click.echo(f"{opened.root}: removed {_count(removed)}, {freed / 1e6:.1f} MB")


def _open(root: Path | None) -> Store:
    """Open a store that is there; a mistyped --store must not make an empty one."""
    folder = root or default_store()
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no store there; a sweep makes one, or name it by --store")
    return Store(folder)


def _captures(opened: Store) -> list[_Kept]:
    return [_Kept(key, opened.folder(key), capture) for key, capture in opened.all()]


def _count(number: int) -> str:
    return f"{number} capture" if number == 1 else f"{number} captures"
