"""Temporary folders that outlive no one: what a killed run leaves is cleared by the next.

Beside each folder lies a lock that its maker holds, `NAME.lock`; the kernel frees it however the
maker ends. A folder whose lock is free belongs to nobody.
"""

import shutil
import uuid
import weakref
from pathlib import Path

from filelock import FileLock, Timeout


class Scratch:
    """A new folder in `root` whose name begins with `prefix`; close it to delete it.

    Those that earlier makers abandoned under the same root and prefix are deleted first.
    """

    def __init__(self, root: Path, prefix: str) -> None:
        clear_abandoned(root, prefix)
        self.folder = root / f"{prefix}{uuid.uuid4().hex[:12]}"
        # The lock first: a folder is never there without.
        lock = _lock_of(self.folder)
        lock.acquire()
        self.folder.mkdir(mode=0o700)
        # Also at the end of a process that never gets to close it.
        self._finalizer = weakref.finalize(self, _delete, self.folder, lock)

    def close(self) -> None:
        """Delete the folder, if it is still there; may be called again."""
        self._finalizer()


def clear_abandoned(root: Path, prefix: str) -> None:
    """Delete the folders of makers that have ended without closing them."""
    for folder in root.glob(f"{prefix}*"):
        lock = _lock_of(folder)
        # Where there is no lock the folder is none of ours.
        if not folder.is_dir() or not Path(lock.lock_file).exists():
            continue
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):  # alive, or another user's
            continue
        _delete(folder, lock)


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"), thread_local=False)


def _delete(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
