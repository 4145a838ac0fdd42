"""The controller's side of the fork servers: each forks a child per cell.

There is one for each variant tree, mode and kernels.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.environment import server_environment
from ..engine.process_groups import end_group
from ..plan.cell import Cell
from .scratch import Scratch

_HARNESS = Path(__file__).resolve().parent.parent
# How long a server may take to end its children and itself: longer than one of those may.
_CLOSE_SECONDS = 20
# How long the helpers of a child that has ended may take to end by themselves: Python's resource
# tracker removes the shared memory that the child left behind.
_GRACE_SECONDS = 6


_PREFIX = "pp-harness-servers-"
# The longest path of a folder for temporary files in which vLLM's sockets, two folders below it,
# keep within the 107 characters that a socket's name may have.
_LONGEST_ROOT = 107 - len("/" + _PREFIX + "0123456789ab" + "/s01234567" + "/" + 36 * "0")


def _places(folder: Path) -> dict[str, str]:
    """Send temporary files to `folder`, and leave what is found again by its place where it was.

    vLLM leaves some behind: a file `vllm_dist_...` for each engine since 0.33.0.
    """
    shared = tempfile.gettempdir()
    lasting = {
        "TORCHINDUCTOR_CACHE_DIR": f"{shared}/torchinductor_{os.getuid()}",
        "RAY_TMPDIR": shared,  # names the running cluster
    }
    kept = {name: os.environ.get(name, place) for name, place in lasting.items()}
    return {"TMPDIR": str(folder), **kept}


class _Server:
    """One running fork server and what it has reported."""

    def __init__(self, cell: Cell, log: Path, package: Path) -> None:
        self.log = log
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self.pids: dict[int, int] = {}
        self.statuses: dict[int, int] = {}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [cell.python or sys.executable, "-m", "harness.engine.server", cell.device],
                env=server_environment(cell, cell.tree, package) | _places(log.parent),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            report = json.loads(line)
            if "pid" in report:
                self.pids[report["id"]] = report["pid"]
            else:
                self.statuses[report["id"]] = report["status"]

    def send(self, task: dict[str, str | dict[str, str]]) -> int:
        """Hand over a task and return its id; a server that is dead reports that by itself."""
        with self._lock:
            number = next(self._ids)
            assert self.process.stdin is not None
            try:
                line = json.dumps({"id": number, **task})
                self.process.stdin.write(line.encode() + b"\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                pass
            return number

    def close(self) -> None:
        """End the server and all its children."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(timeout=_CLOSE_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        # A group that has reported its end is left alone: its number may be another's by now.
        alive = [pid for number, pid in self.pids.items() if number not in self.statuses]
        for pid in [*alive, self.process.pid]:
            end_group(pid)
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass(frozen=True)
class Child:
    """The process of one cell, the `number`-th of its server."""

    server: _Server
    number: int
    log: Path
    sockets: Path

    def poll(self) -> int | None:
        """Return the exit status (negative: a signal), None while the process lives."""
        if (status := self.server.statuses.get(self.number)) is not None:
            return status
        died = self.server.process.poll()
        if died is None:
            return None
        with self.log.open("ab") as log:
            log.write(self.server.log.read_bytes()[-4000:])
        return died or 1

    def kill(self) -> None:
        """Kill the whole process group; none of it runs on return."""
        pid = self.server.pids.get(self.number)
        # A child that has no pid yet waits for a server that is stuck while it imports.
        if pid is None:
            end_group(self.server.process.pid)
        else:
            end_group(pid, _GRACE_SECONDS if self.poll() is not None else 0)
        shutil.rmtree(self.sockets, ignore_errors=True)


class ForkServers:
    """Starts cells from a fork server for each tree, mode, kernels and environment asked for."""

    def __init__(self) -> None:
        root = tempfile.gettempdir()
        if len(root) > _LONGEST_ROOT:
            root = "/tmp"  # noqa: S108 - Scratch is ours
        self._scratch = Scratch(Path(root), _PREFIX)
        # Another environment has no harness, or another one: it gets ours, and nothing else of
        # the folder in which ours is installed.
        self._package = self._scratch.folder / "package"
        self._package.mkdir()
        (self._package / _HARNESS.name).symlink_to(_HARNESS)
        self._lock = threading.Lock()
        self._servers: dict[tuple[Any, ...], _Server] = {}

    def start(self, cell: Cell, request: Path, env: dict[str, str], log: Path) -> Child:
        """Start the process that runs `request`, with `env` on top of its variant's environment.

        The first of a variant waits for vLLM's import.
        """
        with self._lock:
            key = cell.tree, cell.mode, cell.kernels, cell.env
            server = self._servers.get(key)
            if server is None or server.process.poll() is not None:
                number = len(list(self._scratch.folder.glob("*.log")))
                own_log = self._scratch.folder / f"server{number}.log"
                server = _Server(cell, own_log, self._package)
                self._servers[key] = server
        # vLLM's sockets outlive their engine, in a folder for all unless it is told another.
        sockets = Path(tempfile.mkdtemp(prefix="s", dir=self._scratch.folder))
        env = {**env, "VLLM_RPC_BASE_PATH": str(sockets)}
        number = server.send({"request": str(request), "env": env, "log": str(log)})
        return Child(server, number, log, sockets)

    def close(self) -> None:
        """End every server and every child."""
        for server in self._servers.values():
            server.close()
        self._scratch.close()
