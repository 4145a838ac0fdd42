"""Engines with faults on order: one tree and one fork server for all of them."""

import threading
from types import SimpleNamespace

import pytest
from fault_tools import ENOUGH, MODEL, Belongings
from planted import VARIANT, planted_series
from trust_page import FAULT, Record, write_page

from harness.capture.record import Capture
from harness.capture.store import Store
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep


@pytest.fixture(scope="session")
def pin(pytestconfig):
    """Return the release that runs, "" for the default pin."""
    return pytestconfig.getoption("--faults-pin")


@pytest.fixture(scope="session")
def series(tmp_path_factory, pin):
    """Return the folder of the series that plants faults."""
    return planted_series(tmp_path_factory.mktemp("faults") / "planted", pin)


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """Return the store with captures of the series without a fault, at PP=1 and PP=2."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def sweep(series, good, pin):
    """Return a sweep over that series, two questions a cell."""
    return Sweep(
        Options(
            pps=(2, 3),
            series=series,
            models=(MODEL,),
            gsm8k_limit=2,
            store=good.root,
        ),
        pin,
    )


@pytest.fixture(scope="session")
def healthy(good, sweep, servers, launched, tmp_path_factory):
    """Return the capture of an engine at PP=2 without a fault; its tree is imported then."""
    for pp in (1, 2):  # the first waits for the import
        folder = tmp_path_factory.mktemp("healthy")
        cell = sweep.cell(Point(VARIANT, MODEL, pp))
        capture = good.commit(
            cell.key, folder, launched(sweep, cell, folder, servers, phase_timeout=ENOUGH)
        )
        assert capture.status == "ok", capture.failure
    return capture


@pytest.fixture
def run(sweep, servers, launched, tmp_path):
    """Return a function that runs an engine with a fault and gives its capture.

    `fault` is an order (planted.py); `meanwhile` is called in this thread with the capture's
    folder while the engine runs, `seen` says that there is one. On return nothing of it is left.
    """

    def run(fault="", pp=2, *, timeout=ENOUGH, meanwhile=None, starter=servers, seen=True):
        folder = tmp_path / f"capture{len(list(tmp_path.glob('capture*')))}"
        folder.mkdir()
        (folder / "fault").write_text(fault)
        cell = sweep.cell(Point(VARIANT, MODEL, pp))
        out = SimpleNamespace(manifest=None, error=None)

        def work():
            try:
                out.manifest = launched(sweep, cell, folder, starter, phase_timeout=timeout)
            except Exception as error:
                out.error = error

        with Belongings() as belongings:
            thread = threading.Thread(target=work)
            thread.start()
            if meanwhile:
                meanwhile(folder)
            thread.join(timeout=2 * ENOUGH)
        assert not thread.is_alive(), "the launch outlasts every limit"
        if out.error:
            raise out.error
        assert not seen or len(belongings.processes) > pp
        assert belongings.left == []
        return Capture(folder, out.manifest)

    return run


@pytest.fixture
def tried(request):
    """Return a function that records a survived fault for results/notes/faults.md."""
    # A report carries it to the controller of xdist.
    properties = request.node.user_properties
    properties.append((FAULT, [request.getfixturevalue("name"), "**not survived**", "", ""]))

    def tried(name, outcome, where, said):
        properties.append((FAULT, [name, outcome, where, said]))

    return tried


def pytest_runtest_logreport(report):
    """Take note of each fault as soon as its test has run: the last that was said of it counts."""
    found = [Record(*value) for key, value in report.user_properties if key == FAULT]
    if found and report.when == "call":
        records.append(found[-1] if report.passed else found[0])


def pytest_sessionfinish(session):
    """Renew the page of the release if the option asks for it."""
    if session.config.getoption("--write-trust") and not hasattr(session.config, "workerinput"):
        write_page(records, session.config.getoption("--faults-pin"))


records = []
