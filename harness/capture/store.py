"""Captures on disk, content-addressed: written into a temporary folder and renamed when whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ..engine.manifest import to_json
from ..files import sha256_of
from .manifest import MANIFEST, Manifest, Status, load_manifest
from .record import Capture, load_capture
from .scratch import Scratch, clear_abandoned


class Store:
    """A folder of captures. Safe for several processes: one lock per key, renames only."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._captures = root / "captures"
        self._locks = root / "locks"
        self._work = root / "work"
        for folder in (self._captures, self._locks, self._work):
            folder.mkdir(parents=True, exist_ok=True)

    def lock(self, key: str) -> FileLock:
        """Return the lock under which the capture `key` is made."""
        return FileLock(self._locks / f"{key}.lock", thread_local=False)

    def find(self, key: str) -> Capture | None:
        """Return the capture `key` if it is there, whole and an answer.

        A blocked capture is no answer: the machine may allow one next time. A capture that is
        damaged is left alone and treated as absent; `damaged` says what is wrong with it.
        """
        folder = self._captures / key
        capture = load_capture(folder)
        if capture is None or capture.status is Status.BLOCKED or damage(folder):
            return None
        return capture

    def damaged(self, key: str) -> str | None:
        """Return what is wrong with the capture `key`; None if it is whole or not there."""
        folder = self._captures / key
        return damage(folder) if folder.exists() else None

    def all(self) -> Iterator[tuple[str, Capture | None]]:
        """Yield every key with its capture, None where the manifest cannot be read."""
        for folder in sorted(self._captures.iterdir()):
            yield folder.name, load_capture(folder)

    def folder(self, key: str) -> Path:
        """Return where the capture `key` lies or would lie."""
        return self._captures / key

    def remove(self, key: str) -> None:
        """Delete a capture."""
        shutil.rmtree(self._captures / key, ignore_errors=True)

    def adopt(self, other: "Store") -> int:
        """Copy the answers of another store that this one lacks; return how many.

        What is blocked or damaged there stays there.
        """
        taken = 0
        for key, _ in other.all():
            found = other.find(key)
            if found is None or self.find(key):
                continue
            with self.lock(key), self.workspace() as folder:
                whole = folder / key
                shutil.copytree(found.folder, whole)
                self.remove(key)
                whole.rename(self._captures / key)
            taken += 1
        return taken

    def clear_workspaces(self) -> None:
        """Delete what runs that were killed left half done."""
        clear_abandoned(self._work, "")

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield a new folder for a capture in the making; what is not committed is deleted."""
        scratch = Scratch(self._work, "")
        try:
            yield scratch.folder
        finally:
            scratch.close()

    def commit(self, key: str, folder: Path, manifest: Manifest) -> Capture:
        """Seal `folder` with its manifest and move it to its place; return the capture."""
        files = {name: sha256_of(folder / name) for name in _files(folder)}
        manifest = manifest.sealed(key, files)
        (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
        target = self._captures / key
        if target.exists():  # blocked or damaged before
            shutil.rmtree(target)
        folder.rename(target)
        return Capture(target, manifest)


def damage(folder: Path) -> str | None:
    """Say what is wrong with a capture: its manifest, its place, its files; None if nothing."""
    manifest = load_manifest(folder)
    if manifest is None:
        return f"{MANIFEST} cannot be read"
    if manifest.seal != manifest.digest:
        return f"{MANIFEST} differs from its digest"
    if manifest.key != folder.name:
        return f"it is the capture {manifest.key[:12]}, moved to another's place"
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != digest:
            return f"{name} differs from its digest"
    more = [name for name in _files(folder) if name not in {MANIFEST, *manifest.files}]
    return f"{more[0]} was added to it" if more else None


def _files(folder: Path) -> list[str]:
    """Name the files of a capture, those in its folders too, such as the adapter that it ran."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)
