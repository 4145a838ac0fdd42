"""A key that is not sent: vLLM's receive buffer keeps what was in it, and nothing fails."""

import shutil

import pytest
from patch_on_top import add_patch

from harness.assets import patches_dir
from harness.capture.record import Capture
from harness.checks.contract.contract import compare_contract
from harness.checks.logits.logits import compare_logits
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

pytestmark = pytest.mark.engine

MODEL = "vllm/model_executor/models/gemma4.py"
SENT = '            if per_layer_inputs is not None:\n                tensors["per_layer_inputs"]'
UNSENT = SENT.replace("is not None", "is None")


def forgetful_series(fixed_tree, folder):
    """The default series, and a patch on top after which the key is never sent."""
    shutil.copytree(patches_dir() / "gemma4-pp", folder)
    before = (fixed_tree / MODEL).read_text()
    assert before.count(SENT) == 1
    add_patch(folder, "forgetful", "0.20.2", {MODEL: (before, before.replace(SENT, UNSENT))})
    return folder


def test_a_stale_buffer_is_named_and_shows_as_nan(sweep, servers, launched, run, tmp_path):
    """The receiver declares and reads what nobody sends: the contract says so, logits are NaN."""
    baseline = run("fixed", "ple", 1)
    fixed_tree = sweep.cell(Point("fixed", "ple", 2)).tree
    series = forgetful_series(fixed_tree, tmp_path / "forgetful-pp")
    forgetful = Sweep(
        Options(
            pps=(2,),
            gsm8k_limit=2,
            store=sweep.store,
            series=series,
        )
    )
    folder = tmp_path / "capture"
    folder.mkdir()
    cell = forgetful.cell(Point("forgetful", "ple", 2))
    manifest = launched(sweep, cell, folder, servers, phase_timeout=300)
    assert manifest.status == "ok", manifest.failure
    candidate = Capture(folder, manifest)
    assert [(f.code, f.key) for f in compare_contract(candidate).findings] == [
        ("CON002", "per_layer_inputs")
    ]
    codes = {finding.code for finding in compare_logits(baseline, candidate).findings}
    assert codes == {"LOG001", "LOG002"}
