"""Real engines on the CPU: one cell takes half a minute, so that tests share captures."""

import pytest

from harness.capture.record import Capture
from harness.engine.settings import Profile
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

PHASE_TIMEOUT = 300


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """The default sweep with two questions a cell and its trees in a folder of this session."""
    return Sweep(Options(pps=(2, 3), gsm8k_limit=2, store=tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="session")
def run(sweep, servers, launched, tmp_path_factory):
    """Run a cell of the sweep once per session and setting; return its capture."""
    done = {}

    def run(variant, model, pp, tp=1, profile=Profile.PARITY, **control):
        key = (variant, model, pp, tp, profile, *sorted(control.items()))
        if key not in done:
            folder = tmp_path_factory.mktemp(f"{variant}-{model}-pp{pp}")
            cell = sweep.cell(Point(variant, model, pp, profile, tp))
            manifest = launched(
                sweep, cell, folder, servers, phase_timeout=PHASE_TIMEOUT, **control
            )
            done[key] = Capture(folder, manifest)
        return done[key]

    return run
