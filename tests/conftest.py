"""What all tests share."""

import itertools

import pytest
from builders import CaptureBuilder, make_cell
from hypothesis import settings

from harness.capture.children import ForkServers

pytest_plugins = ["pytester"]


def pytest_addoption(parser):
    """Register what the harness's own tests take."""
    parser.addoption("--docs-all", action="store_true", help="run every command of the pages")
    parser.addoption("--write-trust", action="store_true", help="renew results/notes/faults.md")


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


@pytest.fixture
def cell():
    """Return a cell; no file that it names exists."""
    return make_cell()
