"""Captures on disk, content-addressed: written into a temporary folder and renamed when whole."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..source.pin import sha256_of
from .record import MANIFEST, Capture, load_capture


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

        A blocked capture is no answer: the machine may allow one next time. A capture whose files
        differ from its manifest is left alone and treated as absent.
        """
        folder = self._captures / key
        capture = load_capture(folder)
        if capture is None or capture.status == "blocked" or damage(folder):
            return None
        return capture

    def all(self) -> Iterator[tuple[str, Capture | None]]:
        """Yield every key with its capture, None where the manifest cannot be read."""
        for folder in sorted(self._captures.iterdir()):
            yield folder.name, load_capture(folder)

    def manifests(self) -> Iterator[dict[str, Any]]:
        """Yield the manifest of every capture that can be read."""
        yield from (capture.manifest for _, capture in self.all() if capture)

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

    def clear_workspaces(self, older_than: float) -> None:
        """Delete what runs that were killed left half done, `older_than` seconds ago or earlier."""
        limit = time.time() - older_than
        for folder in self._work.iterdir():
            if folder.stat().st_mtime < limit:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield a new folder for a capture in the making; what is not committed is deleted."""
        folder = Path(tempfile.mkdtemp(dir=self._work))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, key: str, folder: Path, manifest: dict[str, Any]) -> Capture:
        """Seal `folder` with its manifest and move it to its place; return the capture."""
        files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
        manifest = {**manifest, "key": key, "files": files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        target = self._captures / key
        if target.exists():  # blocked or damaged before
            shutil.rmtree(target)
        folder.rename(target)
        return Capture(target, manifest)


def damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a capture, None if they equal its manifest."""
    capture = load_capture(folder)
    if capture is None:
        return f"{MANIFEST} cannot be read"
    for name, digest in capture.manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != digest:
            return f"{name} differs from its digest"
    return None
