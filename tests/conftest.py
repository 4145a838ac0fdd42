"""What all tests share."""

import itertools

import pytest
from builders import CaptureBuilder
from hypothesis import settings

pytest_plugins = ["pytester"]

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
