"""The command `python -m tools.bundle`."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import click

from harness.assets import patches_dir
from harness.errors import BadInputError, HarnessError
from harness.source.pin import load_pins

from .fill import fill, slim
from .pack import pack, parse_size
from .plan import STAMP, read_bundle, read_have, requirements, resolve

_PROJECT = Path(__file__).resolve().parents[2]


@click.command()
@click.option("--pin", metavar="VERSION", help="vLLM release (default: the default pin).")
@click.option("--python", default="3.12", show_default=True, help="Python of the target.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--split", default="1G", show_default=True, help="Largest size of a part.")
@click.option(
    "--have",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What the target has, as `pip freeze` prints it there; it is left out.",
)
@click.option(
    "--upon",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Another bundle, of another pin, say, that the target has installed: what it brings is "
    "left out.",
)
@click.option(
    "--without", multiple=True, metavar="NAME", help="Leave out a package, and what only it needs."
)
@click.option(
    "--slim",
    multiple=True,
    metavar="PATH",
    help="Leave out files: a path below the install, or a part of one; * matches in a name.",
)
@click.option(
    "--constraints",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Pinned versions (default: constraints/cuda.txt, or those of the release asked for).",
)
def main(
    pin: str | None,
    python: str,
    out: Path,
    split: str,
    have: Path | None,
    upon: Path | None,
    without: tuple[str, ...],
    slim: tuple[str, ...],
    constraints: Path | None,
) -> None:
    """Build an offline install of the harness and a pin's CUDA build: parts and install.sh.

    A second run goes on where the first was stopped. Copy what --out holds but `site` to the
    target and run there: sh install.sh FOLDER
    """
    try:
        _build(pin, python, out, split, have, upon, without, slim, constraints)
    except HarnessError as error:
        click.echo(f"bundle: {error}", err=True)
        sys.exit(2 if isinstance(error, BadInputError) else 1)


def _build(
    version: str | None,
    python: str,
    out: Path,
    split: str,
    have: Path | None,
    upon: Path | None,
    without: tuple[str, ...],
    patterns: tuple[str, ...],
    constraints: Path | None,
) -> None:
    part_bytes = parse_size(split)
    pins = load_pins(patches_dir())
    pin = pins.get(version) if version else pins.default
    there = {**(read_have(have) if have else {}), **(read_bundle(upon) if upon else {})}
    if constraints is None:
        own = "cuda.txt" if pin is pins.default else f"pins/{pin.version}-cuda.txt"
        constraints = _PROJECT / "constraints" / own
    plan = resolve(requirements(_PROJECT, pin), constraints, pin.overrides, there, without, python)
    click.echo(f"{len(plan.bundled)} packages, {len(plan.left_out)} on the target already")
    out.mkdir(parents=True, exist_ok=True)
    site, stamp = out / "site", out / STAMP
    content = json.dumps([python, dict(plan.bundled), patterns, _digest_of_project()])
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == content):
        stamp.unlink(missing_ok=True)
        shutil.rmtree(site, ignore_errors=True)
        fill(site, plan.bundled, _PROJECT, python)
        click.echo(f"slimmed by {slim(site, patterns) >> 20} MiB")
        stamp.write_text(content, encoding="utf-8")
    parts = pack(site, out, part_bytes, python, plan.left_out)
    size = sum(part.stat().st_size for part in parts)
    click.echo(f"{len(parts)} parts, {size / 1e6:.0f} MB, in {out}: copy bundle.part*, SHA256SUMS,")
    click.echo("needs.txt and install.sh to the target, and run there: sh install.sh FOLDER")


def _digest_of_project() -> str:
    """Return the sha256 of everything of ours that a wheel holds."""
    digest = hashlib.sha256()
    for folder in ("harness", "patches", "suites", "pyproject.toml"):
        path = _PROJECT / folder
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(file.relative_to(_PROJECT).as_posix().encode() + b"\0")
                digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main(prog_name="python -m tools.bundle")
