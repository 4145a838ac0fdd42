"""A shrunk random model of another family goes through the harness as an instrument does."""

import pytest
from families import family

from harness.capture.record import Capture
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.registry import Comparison
from harness.models.shrink import shrink
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

pytestmark = pytest.mark.engine


def test_a_shrunk_llama_is_the_same_at_pp_2(servers, launched, tmp_path):
    """Random weights load in vLLM, the contract is seen, and logits are equal bit by bit."""
    folder = shrink(family("llama"), tmp_path / "llama")
    sweep = Sweep(
        Options(
            pps=(2,),
            variants=("base",),
            models=(str(folder),),
            gsm8k_limit=1,
            gsm8k_fewshot=0,
            store=tmp_path / "store",
        )
    )
    captures = []
    for pp in (1, 2):
        work = tmp_path / f"pp{pp}"
        work.mkdir()
        cell = sweep.cell(Point("base", "llama", pp))
        manifest = launched(sweep, cell, work, servers, phase_timeout=300)
        captures.append(Capture(work, manifest))
    for check in ("engine", "contract", "logits"):
        verdict = judge(check, Comparison(*captures))
        assert verdict.outcome is Outcome.PASS, verdict.summary
    assert captures[0].logits.values.std() > 0.5, "logits that say something"
    sent = captures[1].stages[1].steps[0]
    assert set(sent.reads) == {"hidden_states", "residual"}
