"""What all tests share."""

import itertools

import pytest
from builders import CaptureBuilder, make_cell
from hypothesis import settings
from scopes import scope_of

from harness.capture.children import ForkServers
from harness.capture.devices import lease
from harness.capture.launch import launch
from harness.capture.pools import find_pool

pytest_plugins = ["pytester"]


def pytest_addoption(parser):
    """Register what the harness's own tests take."""
    parser.addoption("--docs-all", action="store_true", help="run every command of the pages")
    parser.addoption("--write-trust", action="store_true", help="renew results/notes/faults*.md")
    parser.addoption("--faults-pin", default="", help="the release of tests/faults, if no default")


def pytest_collection_modifyitems(items):
    """Engines first: they take longest."""
    items.sort(key=lambda item: item.get_closest_marker("engine") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadscope` what shares engines or fixtures is the work of one worker.

    `--dist loadgroup` would do, if pytest 9.2 did not keep the groups out of node ids.
    """
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


# No deadline: the first example often pays for an import, and machines are shared.
# Derandomized: a verdict must not depend on the day.
settings.register_profile("harness", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("harness")


@pytest.fixture
def build(tmp_path):
    """Return a function that starts a capture in a folder of its own."""
    numbers = itertools.count()

    def start(**options):
        return CaptureBuilder(tmp_path / f"capture{next(numbers)}", **options)

    return start


@pytest.fixture(scope="session")
def servers():
    """Fork servers for the whole session: vLLM is imported once per variant."""
    servers = ForkServers()
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def launched():
    """Return `launch` on leased devices: workers of xdist run engines beside each other."""

    def run(sweep, cell, folder, servers, **control):
        pool = find_pool(sweep)
        with lease(pool, pool.needed(cell.pp, cell.tp)) as devices:
            return launch(cell, folder, devices, servers, **control)

    return run


@pytest.fixture
def cell():
    """Return a cell; no file that it names exists."""
    return make_cell()
