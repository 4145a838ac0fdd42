"""Kernels that a CPU lacks, named from errors as torch 2.11 and vLLM 0.20.2 word them."""

import pytest

from harness.capture.manifest import Failure
from harness.checks.engine import compare_engines, engine_failure
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.missing_kernel import missing_kernel
from harness.checks.registry import Comparison
from harness.engine.settings import Device

SCAN = "AttributeError: '_OpNamespace' '_C' object has no attribute 'selective_scan_fwd'"
LACKED = {
    SCAN: "torch.ops._C.selective_scan_fwd",
    "AttributeError: '_OpNamespace' '_moe_C' object has no attribute 'topk_softmax'": (
        "torch.ops._moe_C.topk_softmax"
    ),
    "AttributeError: module 'triton' has no attribute 'next_power_of_2'": "triton.next_power_of_2",
    "AttributeError: module 'triton.language' has no attribute 'arange'": "triton.language.arange",
    "NotImplementedError: Could not run 'aten::_flash_attention_forward' with arguments from the "
    "'CPU' backend. This could be because the operator doesn't exist for this backend": (
        "aten::_flash_attention_forward"
    ),
    "NotImplementedError: \"cdist\" not implemented for 'Half'": "cdist for Half",
    "NotImplementedError: MLA is not supported on CPU.": "MLA",
    "NotImplementedError: Sparse Attention is not supported on CPU.": "Sparse Attention",
    "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2": (
        "CPU attention configuration: head_dim=16 isa=2"
    ),
    "RuntimeError: _C::get_scheduler_metadata() expected at most 12 argument(s) but received 13 "
    "argument(s). Declaration: _C::get_scheduler_metadata(int num_req, int num_heads_q)": (
        "_C::get_scheduler_metadata as it is called"
    ),
    "RuntimeError: _C::rms_norm() is missing value for argument 'epsilon'. Declaration: _C::": (
        "_C::rms_norm as it is called"
    ),
    "NotImplementedError: is_act_and_mul=False is supported only for CUDA and ROCm for now": (
        "is_act_and_mul=False"
    ),
    "ModuleNotFoundError: No module named 'flashinfer'": "flashinfer",
    "RuntimeError: HYV4 sparse attention was requested, but no valid sparse MLA backend is "
    "available for current runtime/config.": "sparse MLA backend",
    "ImportError: vllm.vllm_flash_attn requires the CUDA flash attention extensions (_vllm_fa2_C "
    "or _vllm_fa3_C).": "CUDA flash attention extensions",
    "ModuleNotFoundError: No module named 'cutlass'": "cutlass",
    "RuntimeError: expect weight to be bfloat16, float16 or int8.": (
        "a matrix product of weights other than bfloat16, float16 or int8"
    ),
    "NotImplementedError: FP8 KV cache is unsupported in CPU_ATTN": "FP8 KV cache",
    "TypeError: _rejection_greedy_sample_kernel_impl() got an unexpected keyword argument "
    "'SYNTHETIC_MODE'": ("rejection_greedy_sample_kernel as it is called"),
    "ValidationError: 1 validation error for VllmConfig Value error, Model Runner V1 does not "
    "support: Step5": "Triton, for the V2 runner",
    "RuntimeError: causal_conv1d_weight_pack: support only width of 4": (
        "causal_conv1d_weight_pack as it is called"
    ),
    "RuntimeError: int8_scaled_mm_with_quant: expect A to be bfloat16 or half.": (
        "int8_scaled_mm_with_quant for other than bfloat16 or half"
    ),
    "RuntimeError: causal_conv1d_fwd_cpu: expect x to be transposed.": (
        "causal_conv1d_fwd_cpu as it is called"
    ),
    "NotImplementedError: fused_topk is not implemented as lack of triton.": "fused_topk",
    "NotImplementedError: LongcatFlashNgramForCausalLM requires the V2 model runner": (
        "Triton, for the V2 runner"
    ),
}
OTHERS = (
    "RuntimeError: expected scalar type Float but found BFloat16",
    "AttributeError: 'IntermediateTensors' object has no attribute 'get'",
    "AttributeError: 'PPMissingLayer' object has no attribute 'weight'",
    "NotImplementedError: ",
    "ValueError: not enough values to unpack (expected 3, got 2)",
    "TypeError: 'function' object is not subscriptable",
    "RuntimeError: aten::add() is missing value for argument 'other'. Declaration: aten::add",
)


def failure(error, **more):
    return Failure(error=error, phase="load_model", **more)


@pytest.mark.parametrize("error", LACKED)
def test_a_missing_kernel_is_named(error):
    """Each wording of an absent kernel gives the name of what is absent."""
    assert missing_kernel(failure(error)) == LACKED[error]


def test_a_triton_kernel_is_named_by_its_launch():
    """Without a GPU a Triton kernel is a plain function; the innermost launch names it."""
    traceback = (
        '  File "vllm/model_executor/layers/mamba/ops/ssd_bmm.py", line 180, in bmm\n'
        "    _bmm_chunk_fwd_kernel[grid](\n"
        "    ~~~~~~~~~~~~~~~~~~~~~^^^^^^\n"
        "TypeError: 'function' object is not subscriptable\n"
    )
    error = "TypeError: 'function' object is not subscriptable"
    assert missing_kernel(failure(error, traceback=traceback)) == "Triton's _bmm_chunk_fwd_kernel"


def test_a_weight_that_the_choice_of_a_cpu_kernel_cannot_read_is_named():
    """0.20.2 unpacks every weight as a matrix, a convolution's too."""
    error = "ValueError: too many values to unpack (expected 2)"
    place = (
        '  File "vllm/model_executor/layers/utils.py", line 212, in %s\n    n, k = weight.shape\n'
    )
    chosen = place % "dispatch_cpu_unquantized_gemm" + "    ^^^^\n" + error
    assert missing_kernel(failure(error, traceback=chosen)) == "dispatch_cpu_unquantized_gemm"
    assert missing_kernel(failure(error, traceback=place % "forward" + error)) is None


@pytest.mark.parametrize(
    ("file", "asserted"),
    [
        ("router/cpu_router.py", "self.scoring_func"),
        ("cpu_fused_moe.py", "scoring_func"),
    ],
    ids=["0.33.0", "0.20.2 and 0.26.0"],
)
def test_a_choice_of_experts_that_no_cpu_kernel_makes_is_named(file, asserted):
    """vLLM asserts on a CPU that scores which are in no groups come of a softmax."""
    place = (
        '  File "vllm/model_executor/layers/fused_moe/%s", line 239, in _compute\n'
        f'    assert {asserted} == "softmax"\nAssertionError\n'
    )
    named = missing_kernel(failure("AssertionError: ", traceback=place % file))
    assert named == "a choice of experts by other than softmax"
    elsewhere = place % "router/router.py"
    assert missing_kernel(failure("AssertionError: ", traceback=elsewhere)) is None


@pytest.mark.parametrize("error", OTHERS)
def test_other_failures_are_none_of_a_kernel(error):
    """A fault of the model, or of an unknown kind, stays one."""
    assert missing_kernel(failure(error)) is None


def test_our_own_exception_is_no_missing_kernel():
    """What the harness raised is never put down to the platform."""
    assert missing_kernel(failure(SCAN, ours=True)) is None


@pytest.mark.parametrize("check", ["engine", "contract", "logits", "accuracy"])
def test_a_model_that_the_cpu_cannot_run_is_not_judged(build, check):
    """ENG007: no check has an answer where PP=1 lacks a kernel; none says to fix the cause."""
    sides = [build(pp=pp).fail(error=SCAN, place="vllm/m.py:3").save() for pp in (1, 2)]
    verdict = judge(check, Comparison(*sides))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "torch.ops._C.selective_scan_fwd" in verdict.summary
    if check == "engine":
        (finding,) = verdict.findings
        assert (finding.code, finding.place) == ("ENG007", "vllm/m.py:3")
        assert "fix the cause" not in finding.fix


def test_another_failure_at_more_stages_is_reported(build):
    """ENG001 stays: PP=2 fell over something else before it could ask for the kernel."""
    baseline, candidate = build(pp=1).fail(error=SCAN).save(), build(pp=2).fail(rank=1).save()
    verdict = compare_engines(baseline, candidate)
    assert verdict.outcome is Outcome.FAIL
    assert [finding.code for finding in verdict.findings] == ["ENG001", "ENG004"]
    assert "run it on a GPU" in verdict.findings[1].fix


def test_on_a_gpu_it_is_a_failure(build):
    """The same error on a GPU is a broken build or model, and fails."""
    capture = build(pp=1).asked(device=Device.CUDA).fail(error=SCAN).save()
    verdict = engine_failure(capture)
    assert verdict.outcome is Outcome.FAIL
    assert "fix the cause" in verdict.findings[0].fix
