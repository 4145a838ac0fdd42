"""Runs of the suite in a folder of their own, without engines."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401 - pytester unloads what a run has loaded: 480 modules, each time

from harness.assets import suites_dir


@pytest.fixture
def suite(pytester, monkeypatch):
    """Return a function that runs the suite with hand-made captures, and `pytester` beside it."""
    here = Path(__file__)
    # The builders, and the harness of this checkout whichever is installed.
    paths = (here.parent, here.parents[1], here.parents[2])
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, paths)))
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    for name in ("PYTEST_ADDOPTS", "PP_HARNESS_TRACE", "FAKE_ENGINES"):
        monkeypatch.delenv(name, raising=False)
    # Leases of our own: real engines on this machine have nothing to do with these runs.
    leases = pytester.mkdir("leases")
    monkeypatch.setenv("TMPDIR", str(leases))
    monkeypatch.setattr(tempfile, "tempdir", str(leases))
    shutil.copy(suites_dir() / "test_pipeline.py", pytester.path)

    def run(*options, how="runpytest_inprocess"):
        # Hypothesis is no part of a user's run, and costs each process half a second.
        plugins = ("-p", "fake_engines", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
        return getattr(pytester, how)(*plugins, "--pp-store", "store", *options)

    run.pytester = pytester
    return run
