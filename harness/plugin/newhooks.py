"""Hooks of pp-harness that other pytest plugins may implement."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..capture.runner import Launcher
    from ..plan.installation import Finder


@pytest.hookspec(firstresult=True)
def pytest_pp_harness_finder(config: pytest.Config) -> "Finder | None":
    """Give another way to find the vLLM that a sweep runs on; None: the harness's own."""


@pytest.hookspec(firstresult=True)
def pytest_pp_harness_launcher(config: pytest.Config) -> "Launcher | None":
    """Give another way to run the engine of a cell; None: the harness's own."""
