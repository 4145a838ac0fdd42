"""Ray: what is said when it is not there."""

import importlib.util
import sys

import pytest

from harness.capture import pools
from harness.capture.pools import cluster_devices
from harness.errors import BadInputError

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="extra ray")


def test_without_ray(tmp_path):
    """Without the package the extra is named; the environment of the release counts."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')  # no installed packages
    python.chmod(0o755)
    with pytest.raises(BadInputError, match="install the extra 'ray'"):
        cluster_devices(python)


@needs_ray
@pytest.mark.engine
def test_without_a_cluster(monkeypatch):
    """A cluster that does not answer is an error that says how to start one."""
    monkeypatch.setattr(pools, "_ANSWER_SECONDS", 5)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(BadInputError, match=r"no cluster at 127\.0\.0\.1:1 .*ray start --head"):
        cluster_devices()
