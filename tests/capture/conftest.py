"""A small program in the place of the engine of a cell."""

import sys
import tempfile

import pytest

# A fork server that imports no vLLM and whose children run a program of the test's; the program
# knows what it needs to write what the real engine writes.
SERVER = '''\
import json, os, pathlib, signal, subprocess, sys, time
from harness.engine import main as engine, server
from harness.engine.failures import RankFailure, is_ours

PROGRAM = pathlib.Path(__file__).with_name("program.py")

def main(request_file):
    request = json.loads(pathlib.Path(request_file).read_text())
    folder = pathlib.Path(request["folder"])

    def phase(name, ago=0):
        """Begin a phase, or claim that it began so many seconds ago."""
        with (folder / "phases.jsonl").open("a") as file:
            file.write(json.dumps({"phase": name, "time": time.time() - ago}) + "\\n")

    def result(error=None):
        if error is not None:
            error = {"error": error, "phase": "", "traceback": "Traceback"}
        content = {"seconds": {"engine": 1.5}, "peak_bytes": [1 << 20], "error": error}
        (folder / "result.json").write_text(json.dumps(content))

    def failure(rank, at, error, file="/site/vllm/model.py"):
        trace = f'Traceback\\n  File "{file}", line 3, in forward\\n    x\\n{error}'
        kind, _, message = error.partition(": ")
        RankFailure(rank=rank, phase="execute_model", time=at, type=kind, message=message,
                    file=file, line=3, place="vllm/model.py:3", ours=is_ours(trace),
                    traceback=trace).write(folder)

    phase("engine")
    try:
        exec(compile(PROGRAM.read_text(), "program.py", "exec"), globals() | locals())
    except SystemExit as end:
        return end.code
    return 0

engine.main = main
server._import_everything = lambda device: None
server.serve(sys.argv[-1])
'''


@pytest.fixture(scope="session")
def bin_folder(tmp_path_factory):
    """Make a Python that starts the server, whatever it is asked for."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "server.py").write_text(SERVER, encoding="utf-8")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/server.py "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.fixture
def engine(bin_folder, monkeypatch):
    """Return a function that lets a program stand for the engine, in forks of a real server."""
    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))

    def stand_in(body):
        (bin_folder / "program.py").write_text(body, encoding="utf-8")

    return stand_in


@pytest.fixture(autouse=True)
def _own_leases(tmp_path, monkeypatch):
    """Keep the leases of a test apart from those of a run on the same machine."""
    leases = tmp_path / "tmp"
    leases.mkdir()
    monkeypatch.setenv("TMPDIR", str(leases))
    monkeypatch.setattr(tempfile, "tempdir", str(leases))
