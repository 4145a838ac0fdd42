"""Plans, limits and shards: which cells run, how many at once, and how a run is ended."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest


def report(suite, folder):
    return json.loads((suite.pytester.path / folder / "report.json").read_text())


# ---- pytest-xdist -----------------------------------------------------------------------------


def test_n_limits_the_engines_and_spreads_no_items(suite):
    """Under -n 2 table and report are those of a plain run, and xdist starts no worker."""
    pytest.importorskip("xdist")
    options = ("--pp", "2", "--pp-variant", "merged", "--pp-model", "ple,moe", "--pp-report")
    suite(*options, "alone")
    result = suite(*options, "limited", "-n", "2")
    assert result.ret == 0
    assert "worker" not in result.stdout.str()
    alone, limited = report(suite, "alone"), report(suite, "limited")
    assert limited["verdicts"] == alone["verdicts"]
    assert [one["id"] for one in limited["cells"]] == [one["id"] for one in alone["cells"]]


@pytest.mark.parametrize("text", ["1", "auto"])
def test_auto_is_what_the_devices_allow(suite, text):
    """-n N is how many engines run at once, `-n auto` as many as there are cores."""
    pytest.importorskip("xdist")
    result = suite("--pp", "2", "--pp-plan", "-n", text)
    assert result.ret == 0
    limit = len(os.sched_getaffinity(0)) if text == "auto" else 1
    result.stdout.fnmatch_lines([f"* cells to run on * devices, at most {limit} at once; *"])


@pytest.mark.parametrize(
    ("options", "engines"),
    [
        (("--pp-mode", "eager"), 2),
        (("--pp-mode", "compiled"), 3),
        (("--pp-mode", "compiled", "-k", "pp4"), 3),
        (("--pp-mode", "compiled", "-k", "pp4 and contract"), 2),
    ],
)
def test_one_engine_stands_beside_those_that_need_it(suite, options, engines):
    """PP=1 without compiled code or drafts, for every PP size, where logits are judged."""
    pp = "4" if "-k" in options else "2"
    result = suite("--pp", pp, "--pp-variant", "fixed", "--pp-model", "ple", "--pp-plan", *options)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"{engines} cells to run on * devices, *"])


# ---- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["pytest", "everyone"])
def test_interrupt_ends_cleanly(suite, monkeypatch, to):
    """Ctrl-C while engines run and an item waits: all end within seconds, with status 2."""
    monkeypatch.setenv("FAKE_HANG", "fixed")
    path = suite.pytester.path
    plugins = ("-p", "fake_engines", "-p", "no:cacheprovider")
    options = ("--pp-store", "store", "--pp", "2", "--pp-variant", "fixed", "--pp-model", "ple")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *plugins, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Started by a shell in the background, it would inherit an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not list(path.glob("hangs-*")) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1)
    began = time.monotonic()
    (os.killpg if to == "everyone" else os.kill)(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output.decode()


# ---- plan -------------------------------------------------------------------------------------


def test_plan_runs_nothing(suite):
    """--pp-plan prints cells, devices, seconds and the bound, and starts and judges nothing."""
    result = suite("--pp", "2", "--pp-model", "ple", "--pp-plan")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*plan: nothing is run*",
            "*start*seconds*devices*from*cell",
            "*0* model *-ple-pp2",
            "6 cells to run on * devices, at most * at once; 0 are in the store",
            "lower bound * s, expected * s, 1.* times that",
        ]
    )
    assert "pipeline parallelism against" not in result.stdout.str()
    assert not list((suite.pytester.path / "store/captures").iterdir())


def test_plan_knows_the_store(suite):
    """What is in the store is not planned, and earlier records give the seconds of the rest."""
    suite("--pp", "2", "--pp-model", "ple", "--pp-variant", "fixed")
    result = suite("--pp", "2", "--pp-model", "ple", "--pp-plan", "--pp-variant", "fixed,base")
    result.stdout.fnmatch_lines(["2 cells to run on *; 2 are in the store"])
    assert "fixed-ple" not in result.stdout.str()


def test_plan_follows_the_selection(suite):
    """-k selects in a plan as in a run."""
    result = suite("--pp", "2", "--pp-plan", "-k", "moe and merged")
    result.stdout.fnmatch_lines(["2 cells to run on *"])


# ---- shards -----------------------------------------------------------------------------------


def collected(suite, *options):
    result = suite("--pp", "2,3,4", "--collect-only", "-q", *options)
    return {line for line in result.outlines if "::" in line}


def test_shards_are_a_partition(suite):
    """Every item is in exactly one shard."""
    parts = [collected(suite, "--pp-shard", f"{n}/3") for n in (1, 2, 3)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set.union(*parts) == collected(suite)


def test_more_shards_than_points_are_refused(suite):
    """A shard with nothing to judge is an error and no empty success."""
    result = suite("--pp", "2", "--pp-model", "ple", "--pp-shard", "4/4")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "nothing is left for it; the sweep has 3 points" in result.stderr.str()


def test_ray_on_a_cpu_is_refused(suite):
    """vLLM has no Ray on a CPU: the option is refused with vLLM's own words, before any engine."""
    result = suite("--pp", "2", "--pp-executor", "ray")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "current platform cpu does not support ray" in result.stderr.str()
