"""`pp-harness store`: list, check and clear the captures on disk."""

import time
from pathlib import Path

import click
from filelock import Timeout

from ..assets import default_store
from ..capture.store import Store
from ..errors import BadInputError
from ..report.text import aligned, counted

_DAY = 86400.0
_STORE = click.option(
    "--store",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder given as --pp-store; by default the user's cache folder.",
)


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
    captures = sorted(opened.all(), key=lambda kept: -_days(opened.folder(kept[0])))
    for key, capture in captures:
        folder, manifest = opened.folder(key), capture.manifest if capture else None
        cell = manifest.cell.id if manifest else "?"
        status = manifest.status if manifest else "unreadable"
        seconds = f"{manifest.seconds['total']:.0f}" if manifest else "?"
        size = f"{_bytes(folder) / 1e6:.1f}"
        rows.append((key[:12], cell, status, f"{_days(folder):.1f}", seconds, size))
    if captures:
        click.echo("\n".join(aligned(rows)))
    click.echo(f"{opened.root}: {counted(len(captures), 'capture')}")


@store.command()
@_STORE
def verify(root: Path | None) -> None:
    """Compare the files of every capture with its manifest.

    Exit status: 0 all whole, 1 some are damaged. A sweep treats a damaged capture as absent and
    makes it again; `gc --damaged` removes it now.
    """
    opened = _open(root)
    keys = [key for key, _ in opened.all()]
    damaged = {key: reason for key in keys if (reason := opened.damaged(key))}
    for key, reason in damaged.items():
        click.echo(f"{key}: {reason}")
    click.echo(f"{opened.root}: {counted(len(keys), 'capture')}, {len(damaged)} damaged")
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
    for key, _ in opened.all():
        old = older_than is not None and _days(opened.folder(key)) > older_than
        if not (everything or old or (damaged and opened.damaged(key))):
            continue
        size = _bytes(opened.folder(key))
        try:
            with opened.lock(key).acquire(blocking=False):
                opened.remove(key)
        except Timeout:
            click.echo(f"{key}: in use, left alone")
            continue
        removed += 1
        freed += size
    opened.clear_workspaces()
    click.echo(f"{opened.root}: removed {counted(removed, 'capture')}, {freed / 1e6:.1f} MB")


def _open(root: Path | None) -> Store:
    """Open a store that is there; a mistyped --store must not make an empty one."""
    folder = root or default_store()
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no store there; a sweep makes one, or name it by --store")
    return Store(folder)


def _days(folder: Path) -> float:
    return (time.time() - folder.stat().st_mtime) / _DAY


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
