"""Real engines show what their logits answer to; dummy weights answer to nothing."""

import pytest

from harness.capture.record import Capture
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.logits.sensitivity import blind_spots, cannot_matter
from harness.checks.registry import Comparison
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

pytestmark = pytest.mark.engine


def test_an_instrument_answers_to_every_weight_and_key(run):
    """PLE at PP=2: each kind of weight and both keys move the logits far beyond rounding."""
    baseline, candidate = run("fixed", "ple", 1), run("fixed", "ple", 2)
    assert blind_spots(Comparison(baseline, candidate), cannot_matter(baseline, candidate)) == ()
    effects = baseline.sensitivity.effects | candidate.sensitivity.effects
    assert {"key:0:hidden_states", "key:0:per_layer_inputs"} < set(effects)
    assert any("per_layer_projection.weight" in name for name in effects)
    assert min(effects.values()) > 1e-4


def test_dummy_weights_end_inconclusive(sweep, servers, launched, tmp_path):
    """vLLM's dummy weights give logits that equal anything of theirs, and no one may trust them."""
    dummy = Sweep(Options(pps=(2,), load_format="dummy", gsm8k_limit=1, store=sweep.store))
    cell = dummy.cell(Point("fixed", "ple", 1))
    capture = Capture(tmp_path, launched(sweep, cell, tmp_path, servers, phase_timeout=300))
    assert abs(capture.logits.values).max() < 1e-20, "logits that say nothing"
    verdict = judge("logits", Comparison(capture, capture))
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict.summary
    assert [finding.code for finding in verdict.findings] == ["LOG004"]
    assert "dummy weights" in verdict.summary
