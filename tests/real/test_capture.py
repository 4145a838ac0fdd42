"""What a real engine leaves behind, and that recording it changes nothing."""

import numpy as np
import pytest

from harness.checks.contract.boundary_cost import boundary_costs
from harness.checks.contract.contract import compare_contract
from harness.checks.finding import Outcome, Severity
from harness.checks.judge import judge
from harness.checks.layers import layer_rows
from harness.checks.logits.logits import compare_logits
from harness.checks.registry import Comparison
from harness.engine.probes import probe_set
from harness.engine.settings import Kernels, Profile

pytestmark = pytest.mark.engine


def sent_probes(capture):
    """The probes that a capture's engine was to run."""
    return probe_set(capture.cell, capture.manifest.effective.block_size)


def sent_rows(capture):
    """The rows of the requests that a capture's engine was sent."""
    return {row for sent in capture.probes.values() for row in sent.rows}


def rows_of(table):
    """The bits of each row of logits, by request and position."""
    return {row: table.values[at].tobytes() for row, at in table.index.items()}


def sampled_rows(capture):
    """The logits that the engine sampled from, in the order of the probes."""
    table = capture.logits
    probes = sent_probes(capture)
    rows = [
        (request.name, len(request.prompt) - 1 + step)
        for probe in probes
        for request in probe.requests
        for step in range(len(request.forced))
    ]
    return table.values[[table.index[row] for row in rows]]


def test_neither_hooks_nor_forking_change_a_bit(run):
    """Logits and answers are those of hooks that are off in workers that vLLM spawns.

    One engine without either: that it has a heartbeat says that the plugin loads when spawned.
    """
    traced = run("fixed", "ple", 2)
    bare = run("fixed", "ple", 2, tracing=False, worker_start="spawn")
    assert bare.status == "ok", bare.failure
    assert all(trace.tracing for trace in traced.stages.values())
    assert sorted(bare.stages) == [0, 1]
    assert not any(trace.tracing or trace.steps for trace in bare.stages.values())
    assert np.array_equal(sampled_rows(traced).view(np.uint32), sampled_rows(bare).view(np.uint32))
    assert [line["output"] for line in traced.answers] == [line["output"] for line in bare.answers]


def test_every_probe_row_is_captured(run):
    """Prefill and decode of every probe request are there, with one fingerprint per layer."""
    capture = run("fixed", "ple", 2)
    probes = sent_probes(capture)
    assert capture.logits.index.keys() == sent_rows(capture)
    assert [sent.request for sent in capture.probes.values()] == [
        request for probe in probes for request in probe.requests
    ], "the token ids stand in the capture"
    layers = sorted(layer for trace in capture.stages.values() for layer in trace.layers)
    assert layers == list(range(10))
    for trace in capture.stages.values():
        for step in trace.steps:
            assert set(step.layers) == set(trace.layers)


def test_the_baseline_is_captured_twice_in_another_order(run):
    """PP=1 runs all batches again in a floor pass; on the CPU not one bit of them moves."""
    baseline, candidate = run("fixed", "ple", 1), run("fixed", "ple", 4)
    first, (again,) = baseline.logits, baseline.floor_logits
    assert first.index.keys() == again.index.keys()
    assert not set(first.index.values()) & set(again.index.values())
    assert rows_of(first) == rows_of(again)
    (trace,) = baseline.stages.values()
    assert [len(steps) for steps in trace.floor_steps] == [len(trace.steps)]
    assert candidate.floor_logits == ()


def test_each_floor_pass_of_stress_has_every_row(run):
    """Other batches, the same rows: the prefix cache gives a prompt what it gave before, no more.

    Decode steps open blocks, and 24 requests decode in one step. Kernels decide no batch: the
    engine of the next test serves.
    """
    baseline = run("fixed", "ple", 1, profile=Profile.STRESS, kernels=Kernels.INVARIANT)
    block = baseline.manifest.effective.block_size
    passes = [baseline.logits, *baseline.floor_logits]
    assert len(passes) == 4
    for table in passes:
        assert table.index.keys() == sent_rows(baseline)
    (trace,) = baseline.stages.values()
    batches = [{step.spans for step in steps} for steps in (trace.steps, *trace.floor_steps)]
    assert not batches[0] & batches[2] & batches[3]
    decodes = [
        [
            span
            for span in step.spans
            if span.start >= len(baseline.probes[span.request].request.prompt)
        ]
        for step in trace.steps
    ]
    assert max(map(len, decodes)) >= 24
    assert any(span.start == block for spans in decodes for span in spans)


def test_invariant_kernels_repeat_in_other_batches(run):
    """On a CPU too every row has its bits in every batch, behind every layer."""
    baseline = run("fixed", "ple", 1, profile=Profile.STRESS, kernels=Kernels.INVARIANT)
    assert baseline.manifest.effective.kernels is Kernels.INVARIANT
    first, digests = rows_of(baseline.logits), layer_rows(baseline, "digest")
    assert first
    for number, table in enumerate(baseline.floor_logits):
        assert rows_of(table) == first
        assert layer_rows(baseline, "digest", floor=number) == digests


def test_four_stages_agree(run):
    """A middle stage both reads and sends; the fix relays the per-layer inputs through it."""
    baseline, candidate = run("fixed", "ple", 1), run("fixed", "ple", 4)
    assert judge("engine", Comparison(baseline, candidate)).outcome is Outcome.PASS
    assert baseline.manifest.effective.workarounds == ()
    assert candidate.manifest.effective.workarounds == ("cpu-shared-memory",)
    contract = compare_contract(candidate)
    assert contract.outcome is Outcome.PASS, contract.summary
    middle = candidate.stages[1].steps[0]
    assert set(middle.reads) == set(middle.sent) == {"hidden_states", "per_layer_inputs"}
    assert compare_logits(baseline, candidate).outcome is Outcome.PASS


def test_per_layer_inputs_carry_what_no_later_stage_uses(run):
    """A stage gets all layers' inputs and uses its own: the report says how much is waste."""
    candidate = run("fixed", "ple", 4)
    layers = {stage: len(trace.layers) for stage, trace in candidate.stages.items()}
    costs = {c.boundary: c for c in boundary_costs(candidate.stages) if c.key == "per_layer_inputs"}
    total = sum(layers.values())
    assert costs["0->1"].unused == pytest.approx(layers[0] / total)
    assert costs["1->2"].unused == pytest.approx((layers[0] + layers[1]) / total)
    assert costs["0->1"].bytes_per_token == total * 16 * 4


def test_the_multimodal_class_is_seen_through(run):
    """Layers are found behind the wrapper, tensors are traced through it, and logits are equal."""
    baseline, candidate = run("fixed", "mm", 1), run("fixed", "mm", 3)
    assert candidate.manifest.effective.architecture == "Gemma4ForConditionalGeneration"
    assert judge("engine", Comparison(baseline, candidate)).outcome is Outcome.PASS
    assert {stage: trace.layers for stage, trace in candidate.stages.items()} == {
        0: (0, 1),
        1: (2, 3),
        2: (4, 5),
    }
    assert set(candidate.stages[1].steps[0].reads) == {"hidden_states", "per_layer_inputs"}
    assert compare_contract(candidate).outcome is Outcome.PASS
    assert compare_logits(baseline, candidate).outcome is Outcome.PASS


def test_tensor_parallel_beside_pipeline_parallel(run):
    """Two ranks a stage: each is traced, one writes the logits, and PP=2 equals PP=1 at that TP.

    The split is the most uneven one that the planner calls legal (test_partition_engine.py).
    """
    baseline, candidate = run("fixed", "ple", 1, tp=2), run("fixed", "ple", 2, tp=2, split=(1, 9))
    assert judge("engine", Comparison(baseline, candidate)).outcome is Outcome.PASS
    assert set(candidate.ranks) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    contract = compare_contract(candidate)
    assert contract.outcome is Outcome.PASS, contract.summary
    assert len(candidate.logits.index) == len(candidate.logits.values)
    assert compare_logits(baseline, candidate).outcome is Outcome.PASS


def test_dropped_per_layer_inputs_are_found_and_placed(run):
    """The merged PR: the key is never read, logits differ, from the first layer of stage 1 on."""
    baseline, candidate = run("merged", "ple", 1), run("merged", "ple", 2)
    contract = compare_contract(candidate)
    errors = [f for f in contract.findings if f.severity is Severity.ERROR]
    assert [(f.code, f.key, f.stage) for f in errors] == [("CON001", "per_layer_inputs", 1)]
    (finding,) = compare_logits(baseline, candidate).findings
    assert (finding.code, finding.stage) == ("LOG001", 1)
    assert finding.layer == min(candidate.stages[1].layers)
    assert finding.evidence["entered"] == {
        "hidden_states": "arrives equal",
        "per_layer_inputs": "arrives equal and is not read",
    }


def test_a_crash_is_recorded_with_its_root_cause(run):
    """The base release crashes on stage 1; the record names rank, file and line.

    What it is compared with makes no difference then: PP=1 of the merged change serves.
    """
    baseline, candidate = run("merged", "ple", 1), run("base", "ple", 2)
    assert candidate.status == "failed"
    assert candidate.failure.rank == 1
    assert candidate.failure.error == (
        "AttributeError: 'IntermediateTensors' object has no attribute 'get'"
    )
    assert candidate.failure.place.startswith("vllm/model_executor/models/gemma4.py:")
    assert judge("engine", Comparison(baseline, candidate)).outcome is Outcome.FAIL
    codes = {
        finding.code for finding in judge("contract", Comparison(baseline, candidate)).findings
    }
    assert codes == {"CON004", "CON005"}
    assert judge("logits", Comparison(baseline, candidate)).outcome is Outcome.BLOCKED
