"""Make the folder that a bundle holds: packages installed for the target, less what is not run."""

import csv
import fnmatch
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import BadInputError

from .plan import PLATFORM, run_uv


def fill(site: Path, packages: Mapping[str, str], project: Path, python: str) -> None:
    """Install `packages` and the project itself into `site`, for another Python if need be.

    Raises:
        BadInputError: a package has no build for the target, or cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text("".join(f"{n}=={v}\n" for n, v in packages.items()), encoding="utf-8")
        run_uv(
            [
                *("pip", "install", "--quiet", "--no-deps", "--no-config", "--target", str(site)),
                *("--python-version", python, "--python-platform", PLATFORM),
                # uv's cache is linked into environments: what is slimmed away must not be its.
                *("--link-mode", "copy", "-r", str(pins), str(project)),
            ],
            "the packages cannot be installed",
        )


def slim(site: Path, patterns: Sequence[str]) -> int:
    """Remove the files whose path below `site` matches a pattern; return the bytes saved.

    A pattern is a path with `*`, or a part of one (`_flashmla*`): it matches whole path
    components in a row, and a folder's name takes all that is below it. RECORD forgets what was
    removed, so that the install is still what its metadata says.

    Raises:
        BadInputError: a pattern matches nothing.
    """
    files = [file for file in sorted(site.rglob("*")) if file.is_file()]
    saved = 0
    removed: set[str] = set()
    for pattern in patterns:
        hits = [f for f in files if _matches(f.relative_to(site).parts, pattern)]
        if not hits:
            raise BadInputError(f"--slim {pattern}: no installed file has such a path")
        for file in hits:
            name = file.relative_to(site).as_posix()
            if name not in removed:
                saved += file.stat().st_size
                removed.add(name)
                file.unlink()
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
        left = [row for row in rows if row[0] not in removed]
        if len(left) < len(rows):
            with record.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(left)
    return saved


def _matches(parts: tuple[str, ...], pattern: str) -> bool:
    wanted = pattern.strip("/").split("/")
    return any(
        all(fnmatch.fnmatchcase(part, want) for part, want in zip(parts[i:], wanted, strict=False))
        for i in range(len(parts) - len(wanted) + 1)
    )
