"""The runner: each cell once, side by side, and nothing left when it is closed."""

import dataclasses
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from harness.capture.devices import DevicePool, lease
from harness.capture.runner import Runner
from harness.capture.store import Store

# Every start of the engine leaves a file in the folder that the cell's model names.
COUNT = """\
marks = pathlib.Path(request["model_path"])
marks.mkdir(parents=True, exist_ok=True)
(marks / str(os.getpid())).write_text(json.dumps(request["devices"]))
"""


@pytest.fixture
def runners(tmp_path):
    """Return a function that makes runners on one store; all are closed at the end."""
    made = []

    def make(ids=(0, 1), memory=0.0, **options):
        pool = DevicePool("cpu", ids, memory)
        made.append(Runner(Store(tmp_path / "store"), pool, phase_timeout=30, **options))
        return made[-1]

    make.made = made
    yield make
    for runner in made:
        runner.close()


@pytest.fixture
def counted(cell, tmp_path):
    """Return a cell whose engine leaves a mark, and a function that counts the marks."""
    marks = tmp_path / "marks"
    marked = dataclasses.replace(cell, model_path=str(marks))
    return marked, lambda: len(list(marks.glob("*")))


def test_cell_runs_once_for_all_who_ask(runners, counted, engine):
    """Items that compare with the same baseline share one engine."""
    cell, starts = counted
    engine(COUNT + "result()")
    runner = runners()
    futures = [runner.submit([cell])[0] for _ in range(5)]
    assert {future.result().capture.status for future in futures} == {"ok"}
    assert starts() == 1
    assert runner.obtain(cell).fresh


def test_next_run_reuses_the_capture(runners, counted, engine):
    """A cell that is in the store is not run again, and is not called fresh."""
    cell, starts = counted
    engine(COUNT + "result()")
    runners().submit([cell])[0].result()
    second = runners().obtain(cell)
    assert (second.capture.status, second.fresh, starts()) == ("ok", False, 1)


@pytest.mark.parametrize(
    ("body", "status", "starts_twice"),
    [
        ("failure(0, 1.0, 'ValueError: x'); sys.exit(1)", "failed", 1),
        ("sys.exit(1)", "blocked", 2),
    ],
)
def test_only_answers_are_reused(runners, counted, engine, body, status, starts_twice):
    """A crash with a cause is an answer and kept; a blocked cell is run again."""
    cell, starts = counted
    engine(COUNT + body)
    assert runners().obtain(cell).capture.status == status
    assert runners().obtain(cell).capture.status == status
    assert starts() == starts_twice


def test_two_runners_share_the_work(runners, counted, engine):
    """Two runs on one store that want the same cell at the same time start one engine."""
    cell, starts = counted
    engine(COUNT + "time.sleep(0.3); result()")
    futures = [runners().submit([cell])[0] for _ in range(2)]
    assert sorted(future.result().fresh for future in futures) == [False, True]
    assert starts() == 1


def test_cells_run_side_by_side_on_their_own_devices(runners, cell, tmp_path, engine):
    """Two cells on two cores run at the same time, never on the same core."""
    engine(
        COUNT + "end = time.time() + 10\n"
        "while len(list(marks.parent.glob('marks*/*'))) < 2 and time.time() < end:\n"
        "    time.sleep(0.02)\n"
        "result(None if time.time() < end else 'alone')"
    )
    runner = runners()
    cells = [
        dataclasses.replace(cell, model_digest=str(n), model_path=str(tmp_path / f"marks{n}"))
        for n in range(2)
    ]
    assert [f.result().capture.status for f in runner.submit(cells)] == ["ok", "ok"]
    assert {mark.read_text() for mark in tmp_path.glob("marks*/*")} == {"[0]", "[1]"}


def test_close_ends_what_runs_and_drops_what_waits(runners, counted, engine):
    """Closing ends the engine that runs, starts none that waits, and keeps no half capture."""
    cell, starts = counted
    engine(COUNT + "time.sleep(60)")
    runner = runners(ids=(0,))
    cells = [dataclasses.replace(cell, model_digest=str(n)) for n in range(3)]
    futures = [runner.submit([one])[0] for one in cells]
    deadline = time.monotonic() + 10
    while not starts() and time.monotonic() < deadline:
        time.sleep(0.02)
    began = time.monotonic()
    runner.close()
    assert time.monotonic() - began < 10
    assert starts() == 1
    assert isinstance(futures[0].exception(), InterruptedError)
    assert all(future.cancelled() for future in futures[1:])
    assert [key for key, _ in runner._store.all()] == []


def test_a_time_limit_blocks_what_has_no_capture(runners, counted, engine):
    """What ran is ended, what waited never starts, and what is asked for later is blocked too."""
    cell, starts = counted
    engine(COUNT + "time.sleep(0 if request['vocab_size'] == 1 else 60); result()")
    runner = runners(ids=(0,), time_limit=2)
    quick = dataclasses.replace(cell, vocab_size=1)
    cells = [quick, *(dataclasses.replace(cell, model_digest=str(n)) for n in range(2))]
    made = [future.result(20).capture for future in runner.submit(cells)]
    assert [capture.status for capture in made] == ["ok", "blocked", "blocked"]
    assert "no capture within 2 s" in made[1].failure.error
    assert starts() == 2
    later = dataclasses.replace(cell, model_digest="later")
    assert runner.obtain(later).capture.status == "blocked"
    assert runner.obtain(quick).capture.status == "ok"
    assert [key for key, _ in runner._store.all()] == [quick.key]


@pytest.mark.parametrize("held", ["device", "capture"])
def test_close_does_not_wait_for_others(runners, cell, tmp_path, held):
    """A run that waits for another run's device or capture can be ended at once."""
    store, pool = Store(tmp_path / "store"), DevicePool("cpu", (0,))
    with lease(pool, 1) if held == "device" else store.lock(cell.key):
        runner = runners(ids=(0,))
        waiting = runner.submit([cell])[0]
        time.sleep(0.3)
        closing = threading.Thread(target=runner.close)
        closing.start()
        closing.join(5)
        assert not closing.is_alive()
    assert isinstance(waiting.exception(), InterruptedError)


def test_largest_first(runners, cell, tmp_path, engine):
    """Cells queued together start with the one that is expected to take longest."""
    engine(COUNT + "result()")
    runner = runners(ids=(0,))
    cells = [
        dataclasses.replace(cell, pp=pp, model_path=str(tmp_path / f"marks{pp}"))
        for pp in (1, 4, 2)
    ]
    for future in runner.submit(cells):
        future.result()
    began = {one.pp: runner.obtain(one).capture.manifest.began for one in cells}
    assert sorted(began, key=began.get) == [4, 2, 1]


def test_a_run_does_not_wait_for_itself(runners, cell, engine):
    """Cells that start together never report that another run holds their devices."""
    engine("result()")
    lines = []
    runner = runners(ids=tuple(range(8)), listener=lines.append)
    cells = [dataclasses.replace(cell, model=f"m{n}", model_digest=str(n)) for n in range(8)]
    assert {f.result().capture.status for f in runner.submit(cells)} == {"ok"}
    runner.close()
    for told in ("started on", "ok after"):
        assert sorted(line.split()[0] for line in lines if told in line) == sorted(
            each.id for each in cells
        )
    assert len(lines) == 2 * len(cells)


@pytest.mark.parametrize("held", ["device", "capture"])
def test_a_cell_that_waits_for_another_run_is_reported_once(runners, cell, tmp_path, engine, held):
    """Another process that holds the device, or makes the capture, is the reason for a wait."""
    engine("result()")
    lines = []
    runner = runners(ids=(0,), listener=lines.append)
    with another_run(held, tmp_path / "store", cell.key):
        future = runner.submit([cell])[0]
        while not lines:
            time.sleep(0.02)
        time.sleep(0.5)
        assert lines == ["fixed-ple-pp2 waits for another run on this machine"]
    assert future.result(20).fresh
    runner.close()
    assert [line.split()[1] for line in lines] == ["waits", "started", "ok"]


def test_lines_name_cell_devices_and_seconds(runners, cell, engine):
    """Each event is one line that names the cell; the reason of a second run is one too."""
    engine("result()")
    lines = []
    first = runners(ids=(0,), listener=lines.append).obtain(cell)
    (first.capture.folder / "log.txt").unlink()
    runners(ids=(0,), listener=lines.append).obtain(cell)
    for runner in runners.made:
        runner.close()
    engine_lines = [
        r"fixed-ple-pp2 started on cpu 0, about \d+ s",
        r"fixed-ple-pp2 ok after \d+\.\d s",
    ]
    again = "fixed-ple-pp2 is run again, its capture is damaged: log.txt is missing"
    for line, wanted in zip(lines, [*engine_lines, again, *engine_lines], strict=True):
        assert re.fullmatch(wanted, line)


HOLD = """\
import sys
from pathlib import Path
from harness.capture.devices import DevicePool, lease
from harness.capture.store import Store
held, store, key = sys.argv[1:]
with lease(DevicePool("cpu", (0,)), 1) if held == "device" else Store(Path(store)).lock(key):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run(held, store, key):
    """Another process that holds device 0, or the lock of a capture, until the block ends."""
    process = subprocess.Popen(
        # Not sys.executable, which the engine fixture replaces.
        [f"{sys.prefix}/bin/python", "-c", HOLD, held, str(store), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate("")


def test_jobs_cap_the_engines(runners, cell, tmp_path, engine):
    """With one engine allowed at once two cells run one after the other, whatever the devices."""
    engine(COUNT + "time.sleep(0.2); result()")
    runner = runners(jobs=1)
    cells = [
        dataclasses.replace(cell, model_digest=str(n), model_path=str(tmp_path / f"marks{n}"))
        for n in range(2)
    ]
    captures = [future.result().capture for future in runner.submit(cells)]
    first, second = sorted(one.manifest.began for one in captures)
    assert second - first > 0.2


def test_plan_runs_nothing(runners, counted, engine):
    """A plan names what would run and what is there already, and starts no engine."""
    cell, starts = counted
    engine(COUNT + "result()")
    runner = runners()
    runner.obtain(cell)
    other = dataclasses.replace(cell, pp=4)
    planned = runner.plan([cell, other])
    assert (planned.stored, list(planned.cells)) == ((cell,), [other.key])
    assert starts() == 1
