"""Faults around a whole run: its controller, its store, its locks, its disk, what it is fed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from fault_tools import MODEL, Belongings, hang_limit, short, wait_for
from planted import VARIANT

from harness.assets import suites_dir
from harness.capture.store import Store

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
# Whatever is in the way, a run ends.
LIMIT = 600
# What a user types, no secret of anyone.
SECRET = "hf_PLANTEDsecretPLANTED"


class Run:
    """A `pytest suites/` in a process of its own, and what belongs to it."""

    def __init__(self, series, store, folder, *options, **environment):
        self.store, self.folder = store, folder
        self.report = folder / "report"
        self.temporary = folder / "tmp"
        if not self.temporary.exists():  # not in `folder`, whose path is too long for sockets
            self.temporary.symlink_to(tempfile.mkdtemp(prefix="ppf", dir="/tmp"))
        temporary = self.temporary.resolve()
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", suites_dir()]
        command += ["--pp", "2", "--pp-series", series, "--pp-variant", VARIANT]
        command += ["--pp-model", MODEL, "--pp-gsm8k-limit", "2", "--pp-store", store]
        command += ["--pp-report", self.report, *options]
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        outer = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
        self._log = (folder / "output.txt").open("w+")
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env={**outer, "TMPDIR": str(temporary), "PYTHONPATH": path, **environment},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            # A job that a shell started in the background ignores Ctrl-C, and so do its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        self._belongings = Belongings(psutil.Process(self.process.pid))
        self._belongings.__enter__()

    def engine(self, file):
        """Wait until a running engine has written `file`; return its folder."""

        def found():
            assert self.process.poll() is None, self.output
            return next(iter(self.store.glob(f"work/*/{file}")), None)

        return wait_for(found).parent

    def end(self):
        """Wait for the end, and for the end of all that belonged to it; return the status."""
        try:
            status = self.process.wait(LIMIT)
            wait_for(lambda: not self._belongings.left, 30)
        finally:
            self.process.kill()
            self._belongings.__exit__()
        return status

    @property
    def output(self):
        """Return what it printed."""
        return (self.folder / "output.txt").read_text()

    @property
    def fresh(self):
        """Return for each PP size whether this run started the engine."""
        return {cell["pp"]: cell["fresh"] for cell in self._content["cells"]}

    @property
    def verdicts(self):
        """Return the verdict of each check."""
        return {one["check"]: one["verdict"] for one in self._content["verdicts"]}

    @property
    def findings(self):
        """Return the findings of the report."""
        return self._content["findings"]

    @property
    def _content(self):
        return json.loads((self.report / "report.json").read_text())

    def left(self):
        """Return what stands in its folder for temporary files, less what is kept there."""
        names = {path.name for path in self.temporary.iterdir()}
        known = f"pp-harness-leases-{os.getuid()}", "torchinductor_", "pytest-of-"
        return {name for name in names if not name.startswith(known)}


@pytest.fixture
def store(good, healthy, tmp_path):
    """Return a function that makes a store with captures of the good one: those of PP in `pps`."""

    def make(*pps, name="store"):
        folder = tmp_path / name
        for part in ("captures", "work", "locks"):
            (folder / part).mkdir(parents=True)
        (folder / "trees").symlink_to(good.root / "trees")
        for key, capture in good.all():
            if capture.manifest.cell.pp in pps:
                shutil.copytree(capture.folder, folder / "captures" / key)
        return folder

    return make


@pytest.fixture
def start(series, pin, tmp_path):
    """Return a function that starts a run on a store; what still runs at the end is ended."""
    runs = []

    def start(store, *options, **environment):
        folder = tmp_path / f"run{len(runs)}"
        folder.mkdir()
        # The same leases, so that what a run holds stands in the way of the next.
        if runs:
            (folder / "tmp").symlink_to(runs[0].temporary.resolve())
        release = ["--pp-pin", pin] if pin else []
        runs.append(Run(series, store, folder, *release, *options, **environment))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.end()
    for run in runs:
        shutil.rmtree(run.temporary.resolve(), ignore_errors=True)


def said(run, words):
    """Return the line of the output that holds `words`."""
    lines = [line for line in run.output.splitlines() if words in line]
    assert lines, run.output
    return lines[0]


def goes_on(run, fresh):
    """Whether a later run passes, with engines for those sizes alone that `fresh` says."""
    assert run.end() == 0, run.output
    assert run.fresh == fresh
    assert not list(run.store.glob("work/*"))
    assert run.left() == set()


# ---- the controller ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("Ctrl-C once", 1),
        pytest.param("Ctrl-C twice", 2, marks=pytest.mark.faults),
    ],
)
def test_ctrl_c(start, store, tried, name, times):
    """The run ends at once with its engines, deletes what is half, and keeps what is whole.

    It runs PP=2 again because of a bit that was flipped in its capture, and so does the next run.
    """
    folder = store(1, 2)
    flip(by_pp(folder))
    run = start(folder)
    run.engine("rank1.jsonl")
    for _ in range(times):
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    # The second may reach pytest while it reports the first: then Python ends by the signal.
    ends = {pytest.ExitCode.INTERRUPTED, *([-signal.SIGINT] if times > 1 else [])}
    assert run.end() in ends
    assert run.left() == set()
    assert not list(run.store.glob("work/*"))
    said(run, "KeyboardInterrupt")
    said(run, "logits.f32 differs")
    tried(name, "no verdict", "PP=2 loads", "pytest is interrupted; nothing is judged")
    goes_on(start(run.store), {1: False, 2: True})


@pytest.mark.parametrize("name", [short("kill -9 of the controller while PP=2 loads", False)])
def test_the_controller(start, store, tried, name):
    """Its engines end with it; the next run clears what it left and keeps the finished cell."""
    run = start(store(), "-n", "0")
    wait_for(lambda: list(run.store.glob("captures/*")))
    run.engine("rank1.jsonl")
    run.process.kill()
    assert run.end() == -signal.SIGKILL
    tried(name, "no verdict", "PP=2 loads", "engines end by themselves")
    goes_on(start(run.store), {1: False, 2: True})


@pytest.mark.parametrize("name", [short("kill -9 of the controller as it seals a capture", False)])
def test_the_controller_at_its_last_step(start, store, tried, name):
    """A capture is there whole or not at all."""
    run = start(store(1), "-p", "kill_at_commit")
    assert run.end() == -signal.SIGKILL
    assert [capture.manifest.cell.pp for _, capture in Store(run.store).all()] == [1]
    tried(name, "no verdict", "before the rename", "the capture is absent, not half")
    goes_on(start(run.store), {1: False, 2: True})


# ---- runs beside each other -------------------------------------------------------------------


@pytest.mark.parametrize("name", [short("two runs on one store at once", False)])
def test_two_runs(start, store, tried, name):
    """Each cell is run once, by one of them; both pass."""
    shared = store()
    runs = [start(shared), start(shared)]
    assert [run.end() for run in runs] == [0, 0], [run.output for run in runs]
    for pp in (1, 2):
        assert sorted(run.fresh[pp] for run in runs) == [False, True]
    tried(name, "pass", "both", "each engine started once")


HOLDER = """\
import pathlib, sys, time
from harness.capture.devices import find_devices, lease
from harness.capture.store import Store
pool = find_devices("cpu")
locks = [Store(pathlib.Path(sys.argv[1])).lock(key) for key in sys.argv[2:]]
for lock in locks:
    lock.acquire()
with lease(pool, len(pool.ids)):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("name", [short("kill -9 of another run with leases and locks", False)])
def test_a_holder_of_leases_and_locks(start, good, store, tmp_path, tried, name):
    """A run waits for them while their holder lives; they fall with it, their files stay."""
    folder, leases = store(1), tmp_path / "tmp"
    leases.mkdir()
    keys = [key for key, _ in good.all()]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder, *keys],
        env={**os.environ, "TMPDIR": str(leases)},
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        run = start(folder, TMPDIR=str(leases))
        time.sleep(8)
        assert run.process.poll() is None
        assert not list(folder.glob("work/*")), "nothing starts without its lock"
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert len(list(folder.glob("locks/*"))) == 2, "stale files stand in nobody's way"
    goes_on(run, {1: False, 2: True})
    tried(name, "pass", "waits, then runs", "locks fall with their holder")


# ---- the store --------------------------------------------------------------------------------


def truncate(captures):
    """Cut the logits of PP=2."""
    file = captures[2] / "logits.f32"
    os.truncate(file, file.stat().st_size // 2)


def flip(captures):
    """Change one bit of the logits of PP=2."""
    file = captures[2] / "logits.f32"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def swap(captures):
    """Put each capture in the place of the other: PP=1 against itself would pass."""
    aside = captures[1].with_name("aside")
    captures[1].rename(aside)
    captures[2].rename(captures[1])
    aside.rename(captures[2])


def by_pp(store):
    """Return the folders of the captures of a store by PP size."""
    return {one.manifest.cell.pp: one.folder for _, one in Store(store).all()}


DAMAGE = {
    "a truncated capture file": (truncate, {1: False, 2: True}, "logits.f32 differs"),
    "a bit flipped in a capture file": (flip, {1: False, 2: True}, "logits.f32 differs"),
    "two captures swapped": (swap, {1: True, 2: True}, "moved to another's place"),
}


# test_ctrl_c shows it in every run of the tests.
@pytest.mark.parametrize("name", [short(name, False) for name in DAMAGE])
def test_a_damaged_capture(start, store, tried, name):
    """It is never judged: said in one line, and its engine runs again."""
    harm, fresh, words = DAMAGE[name]
    folder = store(1, 2)
    harm(by_pp(folder))
    run = start(folder)
    goes_on(run, fresh)
    tried(name, "pass", "run again", said(run, words))


@pytest.mark.parametrize("name", [short("a file of the variant tree changed on disk", False)])
def test_a_changed_tree(start, good, store, tried, name):
    """The tree is compared with what it was built from, and built anew."""
    folder = store(1)
    (folder / "trees").unlink()
    shutil.copytree(good.root / "trees", folder / "trees", copy_function=os.link, symlinks=True)
    (file,) = folder.glob("trees/*/vllm/pp_planted.py")
    right = file.read_text()
    file.unlink()  # else the good store's would change too
    file.write_text(right + "raise SystemExit\n")
    run = start(folder)
    goes_on(run, {1: False, 2: True})
    (file,) = folder.glob("trees/*/vllm/pp_planted.py")
    assert file.read_text() == right
    tried(name, "pass", "before the run", said(run, "was changed on disk"))


@pytest.fixture
def disk(store, tmp_path):
    """Return a store on a disk of 1 MB, with the capture of PP=1 and no room for that of PP=2."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    made = store(1)
    shutil.copytree(made, folder / "store", symlinks=True)
    yield folder / "store"
    subprocess.run(["umount", "--lazy", folder], check=True)


def remount(store, options):
    subprocess.run(["mount", "-o", f"remount,{options}", store.parent], check=True)


def no_space(run):
    """Return the message of a run that is blocked by a full disk, and by nothing else."""
    assert run.end() == pytest.ExitCode.TESTS_FAILED
    assert set(run.verdicts.values()) == {"blocked"}
    (finding,) = [one for one in run.findings if one["code"] == "ENG002"]
    assert "No space left on device" in finding["message"]
    assert "Traceback" not in run.output
    return finding["message"]


@pytest.mark.parametrize("name", [short("disk full while a capture is written", True)])
def test_a_full_disk(start, disk, tried, name):
    """Blocked, with the reason, and no traceback."""
    used = shutil.disk_usage(disk).used
    remount(disk, f"size={used // 1024 + 300}k")
    run = start(disk)
    tried(name, "blocked", "PP=2", no_space(run))


@pytest.mark.parametrize("name", [short("disk full before an engine starts", False)])
def test_a_disk_that_was_full(start, disk, tried, name):
    """Not even the engine's folder can be made: blocked; with room again the next run goes on."""
    with pytest.raises(OSError, match="No space"):
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free + (1 << 20)))
    run = start(disk)
    tried(name, "blocked", "PP=2", no_space(run))
    (disk / "filler").unlink()
    goes_on(start(disk), {1: False, 2: True})


@pytest.mark.parametrize("name", [short("a read-only store", False)])
def test_a_read_only_store(start, disk, tried, name):
    """Refused before any engine, in one line."""
    remount(disk, "ro")
    run = start(disk)
    assert run.end() == pytest.ExitCode.USAGE_ERROR
    line = said(run, "cannot be written to")
    assert "Traceback" not in run.output
    tried(name, "refused", "before the run", line)


# ---- the host ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [short("a folder for temporary files with a long path", False)])
def test_a_long_path(start, store, tmp_path, tried, name):
    """The names of sockets are short all the same."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    goes_on(start(store(1), TMPDIR=str(deep)), {1: False, 2: True})
    assert not [path for path in deep.iterdir() if path.name.startswith("pp-harness-servers")]
    tried(name, "pass", "PP=2", "sockets get a shorter one")


@pytest.mark.parametrize("name", [short("the port that vLLM is told to use is in use", False)])
def test_a_port_in_use(start, store, tried, name):
    """It is no setting of engines that run side by side: each takes a free one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = start(store(), VLLM_PORT=str(taken.getsockname()[1]))
        goes_on(run, {1: True, 2: True})
    tried(name, "pass", "both", "each engine takes a free port")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (
            *short("a hub that does not answer, asked for a model", False).values,
            ["--pp-model", "o/m"],
        ),
        (
            *short("a hub that does not answer, asked for GSM8K", False).values,
            ["--pp-gsm8k", "hub"],
        ),
    ],
)
@pytest.mark.faults
def test_a_silent_hub(start, store, tmp_path, tried, name, options):
    """The connection stands and nothing comes: one error, in bounded time."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        began = time.monotonic()
        run = start(store(1), *options, **home)
        assert run.end() == pytest.ExitCode.USAGE_ERROR, run.output
        assert time.monotonic() - began < 120
    errors = [line for line in run.output.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, run.output
    assert "Traceback" not in run.output
    tried(name, "refused", "before the run", errors[0])


@pytest.mark.parametrize("name", [short("a rank hangs in a sweep (--pp-timeout)", False)])
def test_a_hang_in_a_sweep(start, good, store, tried, name):
    """Rows of the hung cell are blocked, and the report has the stack of each rank."""
    # The start of a fork server is a phase too.
    limit = max(hang_limit(capture) for _, capture in good.all())
    run = start(store(1), "--pp-timeout", str(limit), PP_FAULT="hang 1 decode")
    assert run.end() == pytest.ExitCode.TESTS_FAILED
    assert set(run.verdicts.values()) == {"blocked"}
    (finding,) = [one for one in run.findings if one["code"] == "ENG002"]
    assert f"no end of phase probes within {limit} s" in finding["message"]
    assert {"engine", "rank0", "rank1"} == set(finding["evidence"]["stacks"])
    assert finding["evidence"]["stacks"]["rank1"][0].startswith("vllm/pp_planted.py")
    tried(name, "blocked", "probes", finding["message"])
    goes_on(start(run.store), {1: False, 2: True})


# ---- what must not come through ---------------------------------------------------------------


@pytest.mark.parametrize("name", [short("secrets in the environment", True)])
def test_secrets(start, store, tried, name):
    """A token of the shell is in no capture, log, report or output; engines never had it."""
    secrets = {
        "HF_TOKEN": SECRET,
        "VLLM_API_KEY": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "PGPASSWORD": SECRET,
        "PIP_INDEX_URL": f"https://user:{SECRET}@localhost/simple",
        "VLLM_ADDRESS": f"https://user:{SECRET}@localhost/",
    }
    run = start(store(1), "--junitxml", "junit.xml", PP_FAULT="raise 1 prefill", **secrets)
    assert run.end() == pytest.ExitCode.TESTS_FAILED
    assert run.verdicts["engine"] == "fail"
    files = [path for root in (run.store, run.folder) for path in root.rglob("*")]
    files = [path for path in files if path.is_file() and not path.is_symlink()]
    assert {"log.txt", "capture.json", "report.html", "junit.xml"} <= {path.name for path in files}
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    tried(name, "nothing written", "all files", f"{len(files)} files searched")


@pytest.mark.parametrize("name", [short("escape sequences and HTML in an engine's error", False)])
def test_hostile_words_of_an_engine(start, store, tried, name):
    """What a patched engine says stays text, on the terminal and on the page."""
    run = start(store(1), PP_FAULT="escape 1 prefill")
    assert run.end() == pytest.ExitCode.TESTS_FAILED
    assert "owned" in said(run, "ENG001 stage 1")
    assert "\x1b" not in run.output
    page = (run.report / "report.html").read_text()
    assert "<script>alert(1)</script>" not in page
    assert "\x1b" not in page + (run.report / "report.md").read_text()
    tried(name, "fail", "rank 1, execute_model", said(run, "ENG001 stage 1"))
