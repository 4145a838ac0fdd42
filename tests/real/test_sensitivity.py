"""Real engines show what their logits answer to; dummy weights answer to nothing."""

import pytest

from harness.capture.record import Capture
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.logits.sensitivity import blind_spots
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

pytestmark = pytest.mark.engine


def test_an_instrument_answers_to_every_weight_and_key(run):
    """PLE at PP=2: each kind of weight and both keys move the logits far beyond rounding."""
    baseline, candidate = run("fixed", "ple", 1), run("fixed", "ple", 2)
    assert blind_spots(baseline, candidate) == ()
    effects = baseline.sensitivity.effects | candidate.sensitivity.effects
    assert {"key:0:hidden_states", "key:0:per_layer_inputs"} < set(effects)
    assert any("per_layer_projection.weight" in name for name in effects)
    assert min(effects.values()) > 1e-4


def test_dummy_weights_end_inconclusive(sweep, servers, launched, tmp_path):
    """vLLM's dummy weights give equal logits at PP=1 and PP=2, and no one may trust them."""
    dummy = Sweep(Options(pps=(2,), load_format="dummy", gsm8k_limit=1, store=sweep.store))
    captures = []
    for pp in (1, 2):
        folder = tmp_path / f"pp{pp}"
        folder.mkdir()
        cell = dummy.cell(Point("fixed", "ple", pp))
        manifest = launched(sweep, cell, folder, servers, phase_timeout=300)
        captures.append(Capture(folder, manifest))
    assert abs(captures[0].logits.values).max() < 1e-20, "logits that say nothing"
    verdict = judge("logits", *captures)
    assert verdict.outcome is Outcome.INCONCLUSIVE, verdict.summary
    assert [finding.code for finding in verdict.findings] == ["LOG004"]
    assert "dummy weights" in verdict.summary
