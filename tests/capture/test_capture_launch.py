"""What becomes of a cell's child: real processes, with a small program in the engine's place."""

import dataclasses
import threading
import time
from pathlib import Path

import psutil
import pytest
from builders import EFFECTIVE

from harness.capture import memory
from harness.capture.children import ForkServers
from harness.capture.launch import cell_request, launch
from harness.capture.manifest import OUT_OF_MEMORY
from harness.capture.record import Capture
from harness.checks.engine import engine_failure
from harness.engine.environment import cell_environment, server_environment
from harness.engine.manifest import to_json
from harness.engine.settings import Device, ModelRunner


@pytest.fixture(scope="module")
def servers():
    """Fork servers for the whole file: each test has a child of its own."""
    servers = ForkServers()
    yield servers
    servers.close()


@pytest.fixture
def run(cell, engine, servers, tmp_path):
    """Return a function that launches a cell whose engine is the program `body`."""
    folder = tmp_path / "capture"
    folder.mkdir()

    def run(body, *, stop=None):
        engine(body)
        return launch(cell, folder, (0,), servers, phase_timeout=30, stop=stop)

    run.folder = folder
    return run


def gone(pid):
    """Whether a process ends within a short while; a zombie has ended."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def grandchild(run):
    return int((run.folder / "grandchild").read_text())


SPAWN = """\
child = subprocess.Popen(["/bin/sleep", "60"])
(folder / "grandchild").write_text(str(child.pid))
"""


def test_whole_engine_is_ok(run):
    """Status 0 with a result is a whole capture, with seconds and the effective configuration."""
    (run.folder / "effective.json").write_text(to_json(EFFECTIVE))
    manifest = run("result()")
    assert (manifest.status, manifest.failure) == ("ok", None)
    assert manifest.seconds["engine"] == 1.5
    assert manifest.seconds["total"] > 0
    assert manifest.effective == EFFECTIVE
    assert (manifest.cell.id, manifest.cell.pp) == ("fixed-ple-pp2", 2)


def test_failed_rank_is_the_cause(run):
    """The exception of a rank is the failure, not the wrapper that the parent raised."""
    manifest = run(
        "failure(1, 5.0, 'ValueError: the cause')\n"
        "result('RuntimeError: Engine core initialization failed. See root cause above.')\n"
        "sys.exit(1)"
    )
    assert manifest.status == "failed"
    failure = manifest.failure
    assert (failure.rank, failure.error) == (1, "ValueError: the cause")
    assert (failure.phase, failure.place) == ("execute_model", "vllm/model.py:3")


def test_earliest_rank_wins(run):
    """The rank that failed first is the cause; the others fell over it."""
    manifest = run("failure(0, 9.5, 'later')\nfailure(2, 9.25, 'first')\nsys.exit(1)")
    assert (manifest.failure.rank, manifest.failure.error) == (2, "first")


def test_cut_failure_file_is_passed_over(run):
    """A failure file that a dying rank cut short does not hide the whole one of another."""
    manifest = run(
        '(folder / "failure.0.json").write_text(\'{"rank": 0, "ti\')\n'
        "failure(1, 5.0, 'ValueError: whole')\nsys.exit(1)"
    )
    assert manifest.failure.error == "ValueError: whole"


def test_our_own_exception_blocks(run):
    """An exception out of our hooks says nothing about the model: blocked, never failed."""
    manifest = run(
        "failure(0, 5.0, 'KeyError: 1', file='/x/harness/engine/hooks/tracer.py')\nsys.exit(1)"
    )
    assert manifest.status == "blocked"
    assert manifest.failure.error == "KeyError: 1"


def test_exception_that_the_tracing_tensors_pass_on_is_the_models(run):
    """What IntermediateTensors would raise without the tracer is the model's failure."""
    manifest = run(
        "failure(1, 5.0, \"AttributeError: no 'get'\", "
        "file='/x/harness/engine/hooks/tensors.py')\nsys.exit(1)"
    )
    assert manifest.status == "failed"


def test_refusal_of_the_engine_fails(run):
    """What the engine itself refuses, in the parent, is its failure with its own words."""
    manifest = run("result('ValueError: not a valid Attention layer')\nsys.exit(1)")
    assert manifest.status == "failed"
    assert manifest.failure.error == "ValueError: not a valid Attention layer"
    assert manifest.failure.rank is None


@pytest.mark.parametrize("phase", ["probes", "gsm8k", "shutdown"])
def test_failure_around_the_engine_blocks(run, phase):
    """An error of ours or of lm-eval, outside the engine, gives no answer about the model."""
    manifest = run(f"phase({phase!r})\nresult('OSError: disk full')\nsys.exit(1)")
    assert manifest.status == "blocked"
    assert manifest.failure.phase == phase


def test_cause_comes_from_the_log_when_only_a_wrapper_is_known(run):
    """The wrapper says where to look: the first exception in the log that is no wrapper's."""
    manifest = run(
        "print('INFO all well')\n"
        "print('(Worker_PP1 pid=7) ERROR 01-01 [multiproc.py:9] ValueError: no KV cache source')\n"
        "print('RuntimeError: Engine core initialization failed. See root cause above.')\n"
        "result('RuntimeError: Engine core initialization failed. See root cause above.')\n"
        "sys.exit(1)"
    )
    assert manifest.status == "failed"
    assert manifest.failure.error == "ValueError: no KV cache source"


def test_wrapper_without_a_cause_is_kept(run):
    """With no better line in the log the wrapper is all there is to say."""
    manifest = run("result('RuntimeError: Engine core initialization failed.')\nsys.exit(1)")
    assert "Engine core initialization failed" in manifest.failure.error


def test_time_out_blocks_and_leaves_nothing_behind(run):
    """A phase that outlasts the limit is blocked by name, and its whole process group is gone."""
    began = time.monotonic()
    manifest = run(SPAWN + "phase('gsm8k', ago=3600)\ntime.sleep(60)")
    assert time.monotonic() - began < 20
    assert manifest.status == "blocked"
    assert manifest.failure.error.startswith("no end of phase gsm8k within")
    assert gone(grandchild(run))


def test_each_phase_has_the_whole_limit(run):
    """The limit holds for a phase, not for the run."""
    manifest = run(
        # In one write: whoever looks in between would see the first phase outlast the limit.
        "lines = [json.dumps({'phase': name, 'time': time.time() - ago})\n"
        "         for name, ago in (('probes', 50), ('gsm8k', 5))]\n"
        "with (folder / 'phases.jsonl').open('a') as file:\n"
        "    file.write(''.join(line + '\\n' for line in lines))\n"
        "time.sleep(0.5)\nresult()"
    )
    assert manifest.status == "ok"


def test_silence_before_the_first_phase_is_timed_too(run):
    """A child that hangs before it says anything is blocked in phase start."""
    manifest = run(
        '(folder / "phases.jsonl").unlink()\nos.utime(request_file, (0, 0))\ntime.sleep(60)'
    )
    assert manifest.status == "blocked"
    assert "no end of phase start" in manifest.failure.error


def test_time_out_after_a_known_cause_fails(run):
    """A rank failed and the others hang: the cause is known, the time-out only its consequence."""
    manifest = run("failure(1, 5.0, 'ValueError: x')\nphase('probes', ago=3600)\ntime.sleep(60)")
    assert manifest.status == "failed"
    assert manifest.failure.error == "ValueError: x"


def test_ranks_that_wait_for_a_failed_one_are_not_waited_for(run, monkeypatch):
    """A rank failed and the others hang: they get a short while, not the limit of a phase."""
    monkeypatch.setattr("harness.capture.launch._GRACE_SECONDS", 0.4)
    began = time.monotonic()
    manifest = run(SPAWN + "failure(1, 5.0, 'ValueError: x')\ntime.sleep(60)")
    assert time.monotonic() - began < 20
    assert (manifest.status, manifest.failure.error) == ("failed", "ValueError: x")
    assert gone(grandchild(run))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_child_killed_by_a_signal_blocks(run, name):
    """Death by a signal without a cause is silence, and the signal is named."""
    manifest = run(f"os.kill(os.getpid(), signal.{name})")
    assert manifest.status == "blocked"
    assert name in manifest.failure.error


@pytest.mark.parametrize("who", ["rank", "engine"])
def test_a_kill_for_memory_is_reported_as_that(run, monkeypatch, who):
    """SIGKILL while the kernel's count of kills for memory rises; the finding has its own fix."""
    counts = iter([7])
    monkeypatch.setattr(memory, "oom_kills", lambda: next(counts, 8))
    dead = '[{"rank": 1, "status": -9}]'
    spoken = f"(folder / 'deaths.json').write_text({dead!r})\n" if who == "rank" else ""
    manifest = run(spoken + "os.kill(os.getpid(), signal.SIGKILL)")
    assert (manifest.status, manifest.failure.type) == ("blocked", OUT_OF_MEMORY)
    assert "killed by the kernel for want of memory" in manifest.failure.error
    assert manifest.failure.rank == (1 if who == "rank" else None)
    assert manifest.expected_bytes > 0
    finding = engine_failure(Capture(run.folder, manifest)).findings[0]
    assert "fewer engines at once" in finding.fix


@pytest.mark.parametrize("status", [0, 3])
def test_no_result_blocks(run, status):
    """An end without a result is no answer, even with status 0; the log's tail is the evidence."""
    manifest = run(f"print('last words', flush=True); os._exit({status})")
    assert manifest.status == "blocked"
    assert f"status {status} and no result" in manifest.failure.error
    assert "last words" in manifest.failure.traceback


def test_result_with_a_bad_status_is_not_ok(run):
    """A result without an error from a child that ended badly is not whole."""
    assert run("result()\nsys.exit(3)").status == "blocked"


def test_workers_that_outlive_a_whole_engine_are_gone(run):
    """Even a good end takes the process group with it."""
    assert run(SPAWN + "result()").status == "ok"
    assert gone(grandchild(run))


def test_stop_ends_the_child(run):
    """A stopped run raises, and nothing of the child is left."""
    stop = threading.Event()

    def stop_once_it_runs():
        deadline = time.monotonic() + 30
        while not (run.folder / "spawned").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        stop.set()

    threading.Thread(target=stop_once_it_runs).start()
    with pytest.raises(InterruptedError):
        run(SPAWN + '(folder / "spawned").touch()\ntime.sleep(60)', stop=stop)
    assert gone(grandchild(run))


def test_log_holds_both_streams(run):
    """What the child prints to either stream is in the capture."""
    run("print('out', flush=True); print('err', file=sys.stderr); result()")
    assert set((run.folder / "log.txt").read_text().split()) == {"out", "err"}


# ---- the child's environment --------------------------------------------------------------


def environ(cell, tmp_path, devices=(3,), **changes):
    changed = dataclasses.replace(cell, **changes)
    added = cell_environment(cell_request(changed, tmp_path, devices), tracing=True)
    return {**server_environment(changed, changed.tree, Path("/package")), **added}


def test_variant_tree_comes_first(cell, tmp_path, monkeypatch):
    """The tree under test shadows the installed vLLM; our own package and a user's path follow."""
    monkeypatch.setenv("PYTHONPATH", "/of/the/user")
    assert environ(cell, tmp_path)["PYTHONPATH"] == "/nowhere/tree:/package:/of/the/user"


def test_users_partition_never_leaks(cell, tmp_path, monkeypatch):
    """The cut is that of the cell: the default one is not what the user's shell happens to say."""
    monkeypatch.setenv("VLLM_PP_LAYER_PARTITION", "7,1")
    assert "VLLM_PP_LAYER_PARTITION" not in environ(cell, tmp_path)
    assert environ(cell, tmp_path, partition=(3, 5))["VLLM_PP_LAYER_PARTITION"] == "3,5"


def test_users_plugin_filter_keeps_us(cell, tmp_path, monkeypatch):
    """A filter of vLLM plugins is widened by ours; without a filter none is made."""
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    assert "VLLM_PLUGINS" not in environ(cell, tmp_path)
    monkeypatch.setenv("VLLM_PLUGINS", "theirs")
    assert environ(cell, tmp_path)["VLLM_PLUGINS"] == "theirs,pp_harness"


def test_cores_and_gpus(cell, tmp_path, monkeypatch):
    """A CPU cell names a core for each rank; a GPU cell sees its leased GPUs and no other."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert environ(cell, tmp_path)["VLLM_CPU_OMP_THREADS_BIND"] == "3|3"
    gpu = environ(cell, tmp_path, devices=(2, 3), device=Device.CUDA)
    assert gpu["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in gpu


@pytest.mark.parametrize(("runner", "value"), [("auto", None), ("v1", "0"), ("v2", "1")])
def test_model_runner(cell, tmp_path, monkeypatch, runner, value):
    """A runner that is asked for is told to vLLM; auto leaves the choice to the release."""
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    assert (
        environ(cell, tmp_path, runner=ModelRunner(runner)).get("VLLM_USE_V2_MODEL_RUNNER") == value
    )
