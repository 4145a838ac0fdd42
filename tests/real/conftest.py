"""Real engines on the CPU: tests share captures, fork servers and one store."""

from dataclasses import replace

import pytest

from harness.capture.record import Capture
from harness.capture.store import Store
from harness.engine.settings import Profile
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

PHASE_TIMEOUT = 300
# So few that to lose them all is a significant fall.
QUESTIONS = 8


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The store of this session's sweeps, those of `pytest suites/` too."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def sweep(store):
    """The default sweep with few questions."""
    return Sweep(Options(pps=(2, 3, 4), gsm8k_limit=QUESTIONS, store=store.root))


@pytest.fixture(scope="session")
def run(sweep, store, servers, launched, tmp_path_factory):
    """Return a function that gives the capture of a cell; its engine runs once a session.

    `split` is a layer split that the planner would not take; `control` goes to `launch`. Captures
    without control are in the store.
    """
    controlled = {}

    def run(
        variant, model, pp, tp=1, profile=Profile.PARITY, kernels="default", split=None, **control
    ):
        cell = sweep.cell(Point(variant, model, pp, profile, kernels, tp))
        cell = replace(cell, partition=split) if split else cell
        key = (cell.key, *sorted(control.items()))
        if capture := controlled.get(key) if control else store.find(cell.key):
            return capture
        folder = tmp_path_factory.mktemp(cell.id)
        manifest = launched(sweep, cell, folder, servers, phase_timeout=PHASE_TIMEOUT, **control)
        if control:
            return controlled.setdefault(key, Capture(folder, manifest))
        return store.commit(cell.key, folder, manifest)

    return run
