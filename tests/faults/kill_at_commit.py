"""A plugin for pytest: the process is killed as its first capture is about to get its place."""

import os
import signal
from pathlib import Path

from harness.capture.store import Store

_commit = Store.commit


def commit(self, key, folder, manifest):
    """Commit up to the rename, and no further."""
    rename = Path.rename
    Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    try:
        return _commit(self, key, folder, manifest)
    finally:
        Path.rename = rename


Store.commit = commit
