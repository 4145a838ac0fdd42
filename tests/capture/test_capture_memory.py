"""A process that the kernel killed for want of memory is reported as that, with sizes."""

import os
import signal

import harness.capture.memory as module
from harness.capture.memory import MemoryWatch, oom_kills


def count(root, **files):
    """Write kernel counters below `root`."""
    for name, text in files.items():
        path = root / module._COUNTERS[int(name[1:])]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_kills_of_container_and_host_are_counted(tmp_path):
    """Both versions of cgroups and the host's own counter, whichever there are."""
    assert oom_kills(tmp_path) == 0
    count(tmp_path, _0="low 3\noom 2\noom_kill 1\noom_group_kill 9\n", _2="nr_free 7\noom_kill 4\n")
    assert oom_kills(tmp_path) == 5
    count(tmp_path, _1="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert oom_kills(tmp_path) == 7


def test_a_kill_is_told_with_what_was_held_and_expected(cell, tmp_path, monkeypatch):
    """Only SIGKILL, and only while the kernel's count rose."""
    kills = [3]
    monkeypatch.setattr(module, "oom_kills", lambda: kills[-1])
    watch = MemoryWatch(cell, tmp_path)
    (tmp_path / "stack.rank0.txt").write_text(f"pid {os.getpid()}\n")
    watch.look()
    assert watch.killed("rank0", -signal.SIGKILL) is None
    kills.append(4)
    assert watch.killed("rank0", -signal.SIGTERM) is None
    words = watch.killed("rank0", -signal.SIGKILL)
    assert words.startswith("was killed by the kernel for want of memory (oom_kill): it held ")
    assert "GiB when last seen" in words
    assert "were expected of a rank" in words
    assert "held 0.0 GiB" not in words, "this process holds more than 50 MiB"
