"""What is read from the remains of an engine; real processes where a signal is sent."""

import json
import os
import signal
import subprocess
import sys

import pytest

from harness.capture.postmortem import death, deaths_of, examine, positions, short_stacks, where
from harness.capture.scratch import Scratch
from harness.engine.hooks import stacks
from harness.engine.process_groups import end_group, members

RANK = """\
import pathlib, sys, time
from harness.engine.hooks import stacks
def waits():
    print("armed", flush=True)
    time.sleep(60)
stacks.arm(pathlib.Path(sys.argv[1]), sys.argv[2])
waits()
"""


@pytest.fixture
def rank(tmp_path):
    """Return a function that starts a process which can be asked for its stacks."""
    started = []

    def start(who):
        command = [sys.executable, "-c", RANK, str(tmp_path), who]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b"armed\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_every_process_says_where_it_is(rank, tmp_path):
    """One that waits in compiled code, one that is stopped; a dead one is passed over."""
    rank("engine")
    stopped, dead = rank("rank0"), rank("rank1")
    os.kill(stopped.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
    dead.kill()
    dead.wait()
    assert examine(tmp_path) == {0: "is stopped (SIGSTOP)"}
    found = short_stacks(tmp_path)
    assert set(found) == {"engine", "rank0"}
    assert found["rank0"][0].endswith("waits")
    assert stacks.armed(tmp_path).keys() == {"engine", "rank0", "rank1"}


def test_a_torn_header_asks_nobody(tmp_path):
    """Half a number could be another process's."""
    (tmp_path / "stack.rank0.txt").write_text("pid 1")
    (tmp_path / "stack.rank1.txt").write_text("")
    assert stacks.armed(tmp_path) == {}
    assert examine(tmp_path) == {}


def test_who_died_and_how(tmp_path):
    """A rank that left its exception has spoken; one that was killed has not."""
    statuses = (-9, 1, 3, None)
    dead = [{"rank": rank, "status": status} for rank, status in enumerate(statuses)]
    (tmp_path / "deaths.json").write_text(json.dumps(dead))
    (tmp_path / "failure.1.json").write_text("{}")
    assert deaths_of(tmp_path) == {0: -9, 2: 3, 3: None}
    assert death(None) == "lost its Ray actor"
    assert death(-9) == "was killed by SIGKILL"
    assert death(3) == "ended with status 3 and no exception"


@pytest.mark.parametrize("text", ["", "{", "[]", '[{"rank": 0}]', '{"rank": 0}', "null"])
def test_unreadable_remains_are_no_remains(tmp_path, text):
    """What a dying process left half written explains nothing, and stops nothing."""
    (tmp_path / "deaths.json").write_text(text)
    (tmp_path / "position.0.json").write_text(text if "rank" not in text else "7")
    (tmp_path / "stack.rank0.txt").write_bytes(b"pid 1\n\xff" + text.encode())
    assert deaths_of(tmp_path) == {}
    assert positions(tmp_path) == {}
    assert short_stacks(tmp_path) == {}


def test_words_for_a_place():
    """Method, what it waits for, and the innermost frame, as far as they are known."""
    position = {"phase": "execute_model", "doing": "receive"}
    assert where(position, ["vllm/a.py:3 recv"]) == (
        "in execute_model, waiting to receive at vllm/a.py:3 recv"
    )
    assert where({"phase": None, "doing": None}, None) == "idle"
    assert where(None, None) == "idle"


SHARED = """\
import os, pathlib, signal, time
from multiprocessing import resource_tracker, shared_memory
memory = shared_memory.SharedMemory(create=True, size=64)
# Until it runs its own program the tracker looks like a second engine, and would be killed first.
command = pathlib.Path(f"/proc/{resource_tracker._resource_tracker._pid}/cmdline")
while b"resource_tracker" not in command.read_bytes():
    time.sleep(0.01)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
print(memory.name, flush=True)
time.sleep(60)
"""


def test_the_end_of_a_group_frees_its_shared_memory():
    """Processes go at once; the helper that removes their shared memory goes last."""
    process = subprocess.Popen(
        [sys.executable, "-c", SHARED], stdout=subprocess.PIPE, start_new_session=True
    )
    name = process.stdout.readline().decode().strip()
    process.stdout.close()
    assert os.path.exists(f"/dev/shm/{name}")  # noqa: PTH110
    assert len(members(process.pid)) == 3, "both, and Python's resource tracker"
    end_group(process.pid)
    process.wait()
    assert members(process.pid) == []
    assert not os.path.exists(f"/dev/shm/{name}")  # noqa: PTH110


def test_scratch_outlives_nobody(tmp_path):
    """The next maker clears what a killed one left; what is held, or not ours, stays."""
    tmp_path = tmp_path / "root"
    tmp_path.mkdir()
    held = Scratch(tmp_path, "pp-")
    (tmp_path / "pp-of-somebody-else").mkdir()
    program = (
        "import os, pathlib, sys\nfrom harness.capture.scratch import Scratch\n"
        "one = Scratch(pathlib.Path(sys.argv[1]), 'pp-')\nos._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert len(list(tmp_path.iterdir())) == 5
    new = Scratch(tmp_path, "pp-")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(
        [held.folder.name, new.folder.name, "pp-of-somebody-else"]
    )
    for one in (held, new):
        one.close()
    assert [path.name for path in tmp_path.iterdir()] == ["pp-of-somebody-else"]
