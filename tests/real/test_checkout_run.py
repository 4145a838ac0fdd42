"""`--pp-vllm` with real engines: a checkout of the release's own source."""

import json
import subprocess
import sys

import pytest
from checkouts import release_checkout

from harness.assets import patches_dir, suites_dir
from harness.source.pin import load_pins, locate_vllm

pytestmark = pytest.mark.engine


def test_a_checkout_is_judged_before_and_after_its_changes(tmp_path):
    """The commit that drops PLE breaks the contract; the uncommitted fix restores it.

    What is expected of a release is not expected of a checkout: the finding on base is a failure.
    The base is ahead of the release in compiled code, which is reported.
    """
    installed = locate_vllm(load_pins(patches_dir()).default)
    checkout = release_checkout(tmp_path / "vllm", installed)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(suites_dir()), "--pp", "2", "--pp-model", "ple"),
            *("--pp-vllm", str(checkout.path), "--pp-gsm8k-limit", "1"),
            *("--pp-store", str(tmp_path / "store"), "--pp-report", str(tmp_path / "report")),
            *("-k", "engine or contract or logits", "-p", "no:cacheprovider"),
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    report = json.loads((tmp_path / "report/report.json").read_text())
    verdicts = {
        (verdict["variant"], verdict["check"]): (verdict["verdict"], verdict["expected"])
        for verdict in report["verdicts"]
    }
    assert verdicts == {
        ("base", "engine"): ("pass", False),
        ("base", "contract"): ("fail", False),
        ("base", "logits"): ("fail", False),
        ("worktree", "engine"): ("pass", False),
        ("worktree", "contract"): ("pass", False),
        ("worktree", "logits"): ("pass", False),
    }, done.stdout
    (note,) = report["environment"]["notes"]
    assert note.endswith("a call of these ops may fail, at PP=1 too: changed")
    assert checkout.git("status", "--porcelain") == "M vllm/model_executor/models/gemma4.py"
