"""`pytest suites/` with real engines; first of its folder, whose tests find these captures."""

import json
import subprocess
import sys

import pytest
from checkouts import release_checkout

from harness.assets import patches_dir, suites_dir
from harness.source.pin import load_pins, locate_vllm

pytestmark = pytest.mark.engine

MODEL = "vllm/model_executor/models/gemma4.py"


@pytest.fixture(scope="module")
def judge(sweep, tmp_path_factory):
    """Return a function that runs the suite on `ple` at PP=2; it gives status, output, report."""

    def judge(*options):
        folder = tmp_path_factory.mktemp("run")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", suites_dir(), "-p", "no:cacheprovider"),
                *("--pp", "2", "--pp-model", "ple", "--pp-report", folder),
                *("--pp-gsm8k-limit", str(sweep.options.gsm8k_limit)),
                *("--pp-store", sweep.store, *options),
            ],
            capture_output=True,
            text=True,
            timeout=900,
        )
        output = done.stdout + done.stderr
        assert (folder / "report.json").exists(), output
        return done.returncode, output, json.loads((folder / "report.json").read_text())

    return judge


@pytest.fixture(scope="module")
def founding(judge):
    """The founding case: the change as merged, and with our patch."""
    return judge("--pp-variant", "merged,fixed")


def verdicts(report):
    """Return (verdict, expected) by variant and check."""
    return {
        (one["variant"], one["check"]): (one["verdict"], one["expected"])
        for one in report["verdicts"]
    }


def test_the_founding_case_is_wrong_and_then_fixed(founding):
    """The change as merged fails contract, logits and accuracy as expected; fixed passes all."""
    status, output, report = founding
    assert status == 0, output
    wrong, right = ("fail", True), ("pass", False)
    assert verdicts(report) == {
        ("merged", "engine"): right,
        **{("merged", check): wrong for check in ("contract", "logits", "accuracy")},
        **{("fixed", check): right for check in ("engine", "contract", "logits", "accuracy")},
    }, output


def test_a_checkout_is_judged_before_and_after_its_changes(founding, judge, tmp_path):
    """The commit that drops PLE breaks the contract; the uncommitted fix restores it.

    What is expected of a release is not expected of a checkout: the finding on base is a failure.
    A commit and a work tree with the files of the series are its trees, whose engines have run:
    their captures serve. That the base is ahead of the release in compiled code is reported.
    """
    installed = locate_vllm(load_pins(patches_dir()).default)
    checkout = release_checkout(tmp_path / "vllm", installed)
    options = ("--pp-vllm", str(checkout.path), "-k", "engine or contract or logits")
    status, output, report = judge(*options)
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert verdicts(report) == {
        ("base", "engine"): ("pass", False),
        ("base", "contract"): ("fail", False),
        ("base", "logits"): ("fail", False),
        ("worktree", "engine"): ("pass", False),
        ("worktree", "contract"): ("pass", False),
        ("worktree", "logits"): ("pass", False),
    }, output
    assert {cell["id"]: cell["fresh"] for cell in report["cells"]} == {
        f"{variant}-ple-pp{pp}": False for variant in ("base", "worktree") for pp in (1, 2)
    }
    (note,) = report["environment"]["notes"]
    assert note.endswith("a call of these ops may fail, at PP=1 too: changed")
    assert checkout.git("status", "--porcelain") == f"M {MODEL}"
