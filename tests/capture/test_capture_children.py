"""Fork servers: one per variant, nothing shared between cells, nothing left when anyone dies."""

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from harness.capture.children import ForkServers

WAIT = 10


def wait_for(condition):
    """Return what `condition` gives as soon as it is true, or its last value after a while."""
    end = time.monotonic() + WAIT
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def servers():
    servers = ForkServers()
    yield servers
    servers.close()


@pytest.fixture
def start(servers, cell, tmp_path):
    """Return a function that starts a cell and returns its child and its folder."""

    def start(name, env=None, **changes):
        folder = tmp_path / name
        folder.mkdir()
        request = folder / "request.json"
        request.write_text(f'{{"folder": "{folder}"}}')
        changed = dataclasses.replace(cell, **changes)
        return servers.start(changed, request, env or {}, folder / "log.txt"), folder

    return start


PIDS = '(folder / "pids").write_text(f"{os.getpid()} {os.getppid()}")\n'


def pids(folder):
    """Return the pids of a child and of its server, as the child wrote them."""
    return tuple(map(int, wait_for(lambda: _read(folder / "pids")).split()))


def _read(path):
    return path.read_text() if path.exists() else ""


def seen(start, name="a", env=None):
    """Run the stand-in to its end and return the text that it wrote down."""
    child, folder = start(name, env)
    assert wait_for(lambda: child.poll() is not None)
    return (folder / "seen").read_text()


def test_cells_of_a_variant_share_a_server(start, engine):
    """Cells with one tree are forks of one process; another tree, or kernels, have their own."""
    engine(PIDS)
    found = [
        pids(start(name, tree=Path("/tree") / tree, kernels=kernels)[1])
        for name, tree, kernels in (
            ("a", "one", "default"),
            ("b", "one", "default"),
            ("c", "two", "default"),
            ("d", "one", "invariant"),
        )
    ]
    assert found[0][1] == found[1][1]
    assert len({server for _, server in found}) == 3
    assert len({child for child, _ in found}) == 4


def test_a_cells_environment_is_its_own(start, engine):
    """What one cell adds to its environment is not seen by the next fork."""
    engine('(folder / "seen").write_text(os.environ.get("OF_A_CELL", "unset"))')
    for name, env, expected in (("a", {"OF_A_CELL": "1"}, "1"), ("b", {}, "unset")):
        assert seen(start, name, env) == expected


def test_temporary_files_go_with_the_run(start, servers, engine, monkeypatch):
    """What an engine leaves behind goes with the run; a cache stays where the next finds it."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch sets it in its process
    monkeypatch.setenv("RAY_TMPDIR", "/of/a/cluster")
    engine(
        "import tempfile\n"
        'left = tempfile.NamedTemporaryFile(prefix="vllm_dist_", delete=False).name\n'
        'seen = [left, os.environ["TORCHINDUCTOR_CACHE_DIR"], os.environ["RAY_TMPDIR"]]\n'
        '(folder / "seen").write_text("\\n".join(seen))\n'
    )
    left, cache, cluster = seen(start).splitlines()
    assert Path(left).exists()
    servers.close()
    assert not Path(left).exists()
    assert cache == f"{tempfile.gettempdir()}/torchinductor_{os.getuid()}"
    assert cluster == "/of/a/cluster"


def test_what_the_server_imported_is_no_work_for_the_collector(start, engine):
    """It stays frozen in a child, also when vLLM ends a rank and asks for the contrary."""
    engine(
        "import gc\n"
        "before, _ = gc.get_freeze_count(), gc.unfreeze()\n"
        '(folder / "seen").write_text(f"{gc.isenabled()} {before} {gc.get_freeze_count()}")\n'
    )
    is_enabled, before, after = seen(start).split()
    assert is_enabled == "True"
    assert int(after) >= int(before) > 1000


@pytest.mark.parametrize(
    ("body", "status"),
    [("", 0), ("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
)
def test_status_of_a_child(start, engine, body, status):
    """The exit status of a child arrives, a signal as a negative number."""
    engine(body)
    child, _ = start("a")
    wait_for(lambda: child.poll() is not None)
    assert child.poll() == status


def test_killed_child_takes_no_other_with_it(start, engine):
    """Killing one cell leaves its sisters and the server alone."""
    engine(PIDS + "time.sleep(60)")
    (first, one), (second, other) = start("a"), start("b")
    doomed, kept = pids(one)[0], pids(other)[0]
    first.kill()
    assert wait_for(lambda: first.poll() is not None)
    assert gone(doomed)
    assert second.poll() is None
    assert not gone(kept)


def test_close_ends_server_and_children(start, servers, engine):
    """Nothing survives the end of a run."""
    engine(PIDS + "time.sleep(60)")
    everyone = pids(start("a")[1])
    servers.close()
    assert wait_for(lambda: all(map(gone, everyone)))


def test_dead_server_ends_its_cells_and_is_replaced(start, engine):
    """A server that dies leaves a status and its last words; the next cell gets a new one."""
    engine(PIDS + "time.sleep(60)")
    child, folder = start("a")
    pid, server = pids(folder)
    os.kill(server, signal.SIGKILL)
    assert wait_for(lambda: child.poll() is not None)
    assert child.poll() != 0
    child.kill()
    assert wait_for(lambda: gone(pid))
    again, folder = start("b")
    assert pids(folder)[1] != server
    assert again.poll() is None


def test_server_that_cannot_start_says_why(start, monkeypatch, tmp_path):
    """The error of a server that dies while it imports ends up in the cell's log."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho ImportError: no such operator >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    child, folder = start("a")
    assert wait_for(lambda: child.poll() is not None)
    assert child.poll() == 1
    assert "ImportError: no such operator" in (folder / "log.txt").read_text()


CONTROLLER = """\
import dataclasses, pathlib, pickle, sys, time
from harness.capture.children import ForkServers
cell, request, python = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
sys.executable = python
ForkServers().start(cell, request, {}, request.with_name("log.txt"))
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_killed_run_leaves_no_engine(cell, engine, tmp_path, monkeypatch, name):
    """When the run itself is killed its servers and engines end, before leases go to others."""
    import pickle

    engine(PIDS + "time.sleep(60)")
    request = tmp_path / "request.json"
    request.write_text(f'{{"folder": "{tmp_path}"}}')
    handed = tmp_path / "handed"
    handed.write_bytes(pickle.dumps((cell, request, sys.executable)))
    monkeypatch.undo()
    controller = subprocess.Popen([sys.executable, "-c", CONTROLLER, str(handed)])
    everyone = pids(tmp_path)
    controller.send_signal(getattr(signal, name))
    controller.wait()
    assert wait_for(lambda: all(map(gone, everyone)))
