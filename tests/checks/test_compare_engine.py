"""Whether two engines ran and can be compared."""

import pytest

from harness.checks.engine import compare_engines, engine_failure
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.registry import Comparison
from harness.engine.settings import ModelRunner

PARITY = (
    "dtype",
    "enforce_eager",
    "async_scheduling",
    "prefix_caching",
    "kv_blocks",
    "block_size",
    "max_num_batched_tokens",
    "max_num_seqs",
    "architecture",
    "tp",
    "runner",
)


def codes(verdict):
    return [finding.code for finding in verdict.findings]


def test_same_engine_passes(build):
    """Engines that differ in PP alone pass, and the runner and the layer split are named."""
    candidate = build(pp=2)
    candidate.got(partition="3,5")
    verdict = compare_engines(build(pp=1).save(), candidate.save())
    assert verdict.outcome is Outcome.PASS
    assert verdict.summary == "ran on CPUModelRunner, layer split 3,5"


@pytest.mark.parametrize("name", PARITY)
def test_setting_that_differs_fails(build, name):
    """ENG003: a setting that must be equal between PP sizes and is not makes cells incomparable."""
    candidate = build(pp=2)
    other = 7 if name == "tp" else "other"
    candidate.got(**{name: other})
    if name in ("dtype", "tp"):  # the engine is what was asked for, and the baseline is not
        candidate.asked(**{name: other})
    verdict = compare_engines(build(pp=1).save(), candidate.save())
    assert verdict.outcome is Outcome.FAIL
    assert codes(verdict) == ["ENG003"]
    assert name in verdict.summary


def test_engine_that_is_not_what_was_asked_for_fails(build):
    """ENG003: an engine that quietly ran at PP=1 is not a PP=2 result."""
    candidate = build(pp=2)
    candidate.got(pp=1)
    verdict = compare_engines(build(pp=1).save(), candidate.save())
    assert codes(verdict) == ["ENG003"]
    assert "runs PP=1 TP=1 float32, asked for PP=2 TP=1 float32" in verdict.summary


def test_whole_capture_has_no_failure(build):
    """A capture that is whole has nothing to say here."""
    assert engine_failure(build().save()) is None


@pytest.mark.parametrize(
    ("pp", "status", "outcome", "code"),
    [
        (2, "failed", Outcome.FAIL, "ENG001"),
        (2, "blocked", Outcome.BLOCKED, "ENG002"),
        (1, "failed", Outcome.FAIL, "ENG004"),
        (1, "blocked", Outcome.BLOCKED, "ENG005"),
    ],
)
def test_failure_and_silence_are_told_apart(build, pp, status, outcome, code):
    """A crash with a cause fails, silence blocks, and the baseline has codes of its own."""
    verdict = engine_failure(build(pp=pp).fail(status, rank=0, place="vllm/m.py:3").save())
    assert verdict.outcome is outcome
    assert codes(verdict) == [code]
    assert verdict.findings[0].place == "vllm/m.py:3"
    assert "stage 0, load_model: ValueError: no" in verdict.summary


def test_a_failed_rank_is_on_a_stage(build):
    """A finding names the pipeline stage of the rank: with TP=2, rank 3 is on stage 1."""
    verdict = engine_failure(build(pp=2, tp=2).fail(rank=3).save())
    assert verdict.findings[0].stage == 1
    assert verdict.summary.startswith("stage 1, ")


def test_broken_baseline_is_told_beside_a_broken_candidate(build):
    """Both failures are reported: a patch that broke PP=1 too is another bug."""
    verdict = compare_engines(build(pp=1).fail().save(), build(pp=2).fail().save())
    assert codes(verdict) == ["ENG001", "ENG004"]
    assert verdict.outcome is Outcome.FAIL


def test_crash_weighs_more_than_silence(build):
    """A crash of one side is a failure even if the other side is only blocked."""
    baseline, candidate = build(pp=1).fail().save(), build(pp=2).fail("blocked").save()
    assert compare_engines(baseline, candidate).outcome is Outcome.FAIL


def test_evidence_names_no_folder_of_the_machine(build):
    """A report may be published: a traceback names files from their package on."""
    capture = build().fail(
        traceback="Traceback (most recent call last):\n"
        '  File "/home/me/store/trees/vllm-0.20.2-ab/vllm/v1/worker/gpu_worker.py", line 7, '
        'in load_model\n  File "/opt/lib/python3.11/threading.py", '
        "line 9, in run\n",
    )
    saved = capture.save()
    (finding,) = engine_failure(saved).findings
    assert finding.evidence["traceback"].splitlines()[1:] == [
        '  File "vllm/v1/worker/gpu_worker.py", line 7, in load_model',
        '  File "python3.11/threading.py", line 9, in run',
    ]
    assert finding.evidence["capture"] == saved.folder.name


def on_runner(build, pp, asked, seen):
    """A capture whose cell asked for one model runner and whose ranks ran another."""
    built = build(pp=pp)
    built.asked(runner=ModelRunner(asked)).got(runner=seen)
    for rank in built.ranks:
        built.event(rank, "heartbeat")["adapter"] = seen
    return built


@pytest.mark.parametrize("check", ["engine", "contract", "logits", "accuracy"])
def test_a_runner_that_is_not_in_effect_is_not_judged(build, check):
    """ENG006: equal results of V1 say nothing of V2; no check of such a point has an answer."""
    sides = [on_runner(build, pp, "v2", "v1").save() for pp in (1, 2)]
    verdict = judge(check, Comparison(*sides))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.summary == "the model runner v2 was asked for and v1 is in effect"
    assert codes(verdict) == (["ENG006"] if check == "engine" else [])


def judged_with(build, asked, *kept):
    """The engine check of a point that asked for a setting, of which vLLM has `kept`."""
    sides = [build(pp=1), build(pp=2)]
    for side in sides:
        side.asked(engine_args=(asked,)).got(engine_args=kept)
    return compare_engines(*(side.save() for side in sides))


def test_a_runner_that_is_in_effect_is_judged(build):
    """What was asked for and is in effect is compared as ever."""
    sides = [on_runner(build, pp, "v2", "v2").save() for pp in (1, 2)]
    assert compare_engines(*sides).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("async_scheduling", "true", "false"),
        ("enable_chunked_prefill", "false", "true"),
        ("kv_cache_dtype", '"fp8"', '"auto"'),
        ("speculative_config", '{"method": "ngram"}', "null"),
    ],
)
def test_a_setting_that_is_dropped_is_not_judged(build, name, value, kept):
    """ENG006: vLLM's CPU platform has no asynchronous scheduling, and says nothing."""
    verdict = judged_with(build, (name, value), (name, kept))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.summary == f"{name}={value} was asked for and vLLM runs without it here"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (("async_scheduling", "true"), [("async_scheduling", "true")]),
        (("async_scheduling", "null"), [("async_scheduling", "false")]),
        (("quantization", '"awq"'), [("quantization", '"awq_marlin"')]),
        (("speculative_config", '{"method": "ngram"}'), [("speculative_config", "true")]),
        (("enable_lora", "true"), []),
    ],
)
def test_a_setting_that_vllm_keeps_in_its_own_way_is_judged(build, asked, kept):
    """Only what it has dropped is not under test; what is kept by no such name cannot be asked."""
    assert judged_with(build, asked, *kept).outcome is Outcome.PASS


def test_a_runner_that_vllm_refuses_is_not_applicable(build):
    """ENG006: a refusal before any rank starts is vLLM's word on the platform, not a failure."""
    refused = [on_runner(build, pp, "v2", "v2") for pp in (1, 2)]
    for one in refused:
        one.fail(
            rank=None, error="ValidationError: 1 error\n  Model Runner V2 requires Triton. [x]\n"
        )
        for rank in one.ranks:
            one.ranks[rank].clear()
    verdict = compare_engines(*(one.save() for one in refused))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.summary.endswith("vLLM refuses it: Model Runner V2 requires Triton.")


def test_a_failure_on_the_runner_that_was_asked_for_is_a_failure(build):
    """ENG001: a KeyError of V2 is what V2 does with a key that is missing."""
    baseline, candidate = (on_runner(build, pp, "v2", "v2") for pp in (1, 2))
    candidate.fail(rank=1, error="KeyError: 'per_layer_inputs'")
    assert codes(compare_engines(baseline.save(), candidate.save())) == ["ENG001"]


def test_another_runner_at_another_size_fails(build):
    """ENG003: vLLM chose V1 here and V2 at PP=1, so that more than PP differs."""
    baseline, candidate = on_runner(build, 1, "auto", "v2"), on_runner(build, 2, "auto", "v1")
    assert codes(compare_engines(baseline.save(), candidate.save())) == ["ENG003"]


def test_whose_code_raised_is_evidence(build):
    """An exception of ours blocks, says so, and names its type, file and line."""
    raised = {"type": "HookError", "file": "harness/engine/hooks/wrap.py", "line": 30}
    capture = build(pp=2).fail("blocked", rank=1, ours=True, **raised).save()
    (finding,) = engine_failure(capture).findings
    assert raised.items() <= finding.evidence.items()
    assert finding.evidence["ours"]
    assert "pp-harness raised it" in finding.fix
    (model,) = engine_failure(build(pp=2).fail(rank=1).save()).findings
    assert "ours" not in model.evidence
