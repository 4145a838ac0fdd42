"""The planner's verdicts against real loads: vLLM starts what is legal and refuses what is not."""

import pytest

from harness.capture.manifest import Status
from harness.models.partition import as_value, plan_partition

pytestmark = pytest.mark.engine

# What vLLM says of a KV source on another rank, and of a rank without a layer: a block of its KV
# cache has no bytes, and memory is divided by them.
NO_SOURCE, NO_LAYER = "is not a valid Attention layer in the model", "ZeroDivisionError"


# tests/real/test_capture.py runs the legal ones: their engines answer.
@pytest.mark.parametrize(("split", "options"), [((1, 9), {"tp": 2, "split": (1, 9)}), (None, {})])
def test_vllm_loads_what_is_legal(sweep, run, split, options):
    """A plan without illegal_reason loads, with the layers of the plan on each stage."""
    pp = len(split) if split else 4
    plan = plan_partition(sweep.models["ple"].config, pp, split)
    assert plan.illegal_reason is None
    capture = run("fixed", "ple", pp, **options)
    assert capture.status is Status.OK, capture.failure
    assert capture.manifest.effective.partition == as_value(plan.layers_per_rank)
    loaded = tuple(len(trace.layers) for _, trace in sorted(capture.stages.items()))
    assert loaded == plan.layers_per_rank


@pytest.mark.parametrize(
    ("model", "split", "refusal"),
    [("ple", (8, 2), NO_SOURCE), ("dense", (8, 0), NO_LAYER)],
)
def test_vllm_refuses_what_is_illegal(sweep, run, model, split, refusal):
    """A plan with an illegal_reason is refused at load, with vLLM's own words."""
    plan = plan_partition(sweep.models[model].config, len(split), split)
    assert plan.illegal_reason is not None
    capture = run("fixed", model, len(split), split=split)
    assert capture.status is Status.FAILED
    assert refusal in capture.failure.error, capture.failure
