"""The self-test on real engines: the subset of the CI."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine


def test_the_quick_subset_is_caught_and_nothing_else(tmp_path):
    """Every seeded fault is caught and placed, no harmless change and no A/A pair alarms.

    The pairs are of one engine or of PP=1 and PP=2; that two engines at one PP are equal is shown
    in test_capture.py, where one forks its ranks with hooks and the other spawns them without.
    """
    target = tmp_path / "selftest.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "harness", "selftest", "--quick"),
            *("--json", str(target), "--store", str(tmp_path / "store")),
        ],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(target.read_text())["figures"]
    assert figures["mutation_score"] == 1.0
    assert figures["false_alarms"] == 0
    assert figures["faults"] >= 10
    assert figures["location_accuracy"] >= 0.95
