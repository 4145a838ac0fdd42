"""The controller's captures reach its workers, and nobody waits for what will not come."""

import dataclasses
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from harness.capture.devices import DevicePool
from harness.capture.exchange import CaptureClient, CaptureServer
from harness.capture.runner import Runner
from harness.capture.store import Store


@pytest.fixture
def server(tmp_path):
    """The controller's side, on one core."""
    runner = Runner(Store(tmp_path / "store"), DevicePool("cpu", (0,)), phase_timeout=30)
    made = CaptureServer(runner)
    yield made
    made.close()


def waiting(client, cell):
    """Return a thread that waits for a cell, and the list that takes what comes of it."""
    came = []

    def wait():
        try:
            came.append(client.obtain(cell))
        except RuntimeError as error:
            came.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, came


def test_worker_gets_what_the_controller_made(server, cell, engine):
    """A capture comes as soon as it is there, and is fresh for every worker."""
    engine("time.sleep(0.3); result()")
    server.submit_all([cell])
    workers = [waiting(CaptureClient(server.folder), cell) for _ in range(3)]
    for thread, _ in workers:
        thread.join(20)
    assert [(came[0].capture.status, came[0].fresh) for _, came in workers] == [("ok", True)] * 3


def test_blocked_captures_arrive(server, cell, engine):
    """A blocked cell is no answer for the store, but one for the items of this run."""
    engine("sys.exit(1)")
    server.submit_all([cell])
    assert CaptureClient(server.folder).obtain(cell).capture.status == "blocked"


def test_queued_again_is_queued_once(server, cell, engine):
    """Every worker reports the same items; the cells run once."""
    engine("result()")
    for _ in range(3):
        server.submit_all([cell])
    assert CaptureClient(server.folder).obtain(cell).fresh


def test_failure_of_the_runner_arrives(tmp_path, cell):
    """What goes wrong in the controller is an error in the worker, with its words."""
    store, pool = Store(tmp_path / "store"), DevicePool("cpu", (0,))
    with closing(CaptureServer(Runner(store, pool, launcher=lambda *_, **__: 1 / 0))) as server:
        server.submit_all([cell])
        with pytest.raises(RuntimeError, match="fixed-ple-pp2: no capture: ZeroDivisionError"):
            CaptureClient(server.folder).obtain(cell)


def test_what_was_not_queued_is_not_waited_for(server, cell):
    """A cell that the controller does not know is an error at once and no deadlock."""
    with pytest.raises(RuntimeError, match="has not queued"):
        CaptureClient(server.folder).obtain(cell)


@pytest.mark.parametrize("how", ["stop", "close"])
def test_stop_lets_workers_go(server, cell, engine, how):
    """Ctrl-C ends a worker that waits for a cell that runs or has not begun."""
    engine("time.sleep(60)")
    cells = [dataclasses.replace(cell, model_digest=str(n)) for n in range(2)]
    server.submit_all(cells)
    workers = [waiting(CaptureClient(server.folder), one) for one in cells]
    time.sleep(0.5)
    getattr(server, how)()
    for thread, came in workers:
        thread.join(5)
        assert not thread.is_alive()
        assert "stopped" in came[0]


GONE = """\
import os, sys, tempfile
from pathlib import Path
from harness.capture.devices import DevicePool
from harness.capture.exchange import CaptureServer
from harness.capture.runner import Runner
from harness.capture.store import Store
server = CaptureServer(Runner(Store(Path(sys.argv[1])), DevicePool("cpu", (0,))))
(server.folder / (sys.argv[2] + ".queued")).touch()
print(server.folder, flush=True)
sys.stdin.read()
os._exit(9)
"""


def test_controller_that_is_gone(tmp_path, cell):
    """A controller that dies without a word lets its workers go."""
    process = subprocess.Popen(
        [sys.executable, "-c", GONE, str(tmp_path), cell.key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    thread, came = waiting(CaptureClient(type(tmp_path)(process.stdout.readline().strip())), cell)
    thread.join(1.5)
    assert thread.is_alive()
    process.communicate("")
    thread.join(10)
    assert came == ["fixed-ple-pp2: the controller is gone"]
