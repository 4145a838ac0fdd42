"""What all tests share."""

import itertools

import pytest
from builders import CaptureBuilder

pytest_plugins = ["pytester"]


@pytest.fixture
def build(tmp_path):
    """Return a function that starts a capture in a folder of its own."""
    numbers = itertools.count()

    def start(**options):
        return CaptureBuilder(tmp_path / f"capture{next(numbers)}", **options)

    return start
