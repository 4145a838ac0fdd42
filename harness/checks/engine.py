"""The check of the engines: both ran, with the layer split and settings that were asked for."""

import re
from dataclasses import asdict
from typing import Any

from ..capture.manifest import OUT_OF_MEMORY, Status
from ..capture.record import Capture
from ..engine.settings import Device, ModelRunner
from .finding import Finding, Outcome, Severity, Verdict, judged, verdict_of
from .missing_kernel import missing_kernel
from .registry import ENGINE, Check, Need, register

# Effective settings that the parity profile needs to be equal between PP sizes.
_PARITY = (
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
    "attention",
    "kernels",
)
# How a setting reads that vLLM has dropped, as JSON.
_NONE = ("null", "false", '"auto"')
# How vLLM refuses a model runner for a platform or a model, before any rank starts.
_RUNNER_REFUSED = re.compile(r"(?:Model Runner V2|VLLM_USE_V2_MODEL_RUNNER)[^\n[]*")
# By (is the baseline, is blocked).
_FAILURE_CODES = {
    (False, False): "ENG001",
    (False, True): "ENG002",
    (True, False): "ENG004",
    (True, True): "ENG005",
}
# In a traceback: the folders before the package that a file belongs to.
_FOLDERS = re.compile(r'File "(?:[^"]*/)?(vllm|torch|lm_eval|transformers|harness|python3\.\d+)/')

# What is advised where a CPU lacks a kernel.
ELSEWHERE = (
    "run it on a GPU (--pp-device cuda), shrink a model without these layers, or lend a checkout "
    "the compiled files of a nearer release (--pp-base-version)"
)
# Of the exception that ended an engine: what it was, where, and whether our own code raised it.
# Then where each rank was, and the innermost frames of those that could still say so.
_RAISED = ("type", "file", "line", "ours", "ranks", "stacks")


def engine_failure(capture: Capture) -> Verdict | None:
    """Verdict on a capture without an answer, None if it is whole.

    An exception with a cause is a failure of the engine; silence is blocked. The baseline has
    codes of its own, so that "PP=1 is broken too" is never taken for "PP=N is broken".
    """
    failure = capture.failure
    if capture.status is Status.OK or failure is None:
        return None
    stage = None
    if failure.rank is not None:  # vLLM numbers tensor-parallel ranks within a stage
        stage = failure.rank // capture.cell.tp
    where = f"stage {stage}" if stage is not None else "the engine"
    message = f"{where}, {failure.phase}: {failure.error}"
    is_baseline = capture.cell.pp == 1
    if is_baseline:
        message = f"the baseline (PP=1) has no answer: {message}"
    is_blocked = capture.status is Status.BLOCKED
    if _lacking(capture) is not None:
        fix = ELSEWHERE
    elif failure.ours:
        fix = "pp-harness raised it, not the model: `pp-harness pin check VERSION`, then report it"
    elif failure.type == OUT_OF_MEMORY:
        fix = (
            "run fewer engines at once (pytest -n 1), use --pp-dtype bfloat16, or a machine with "
            "more memory"
        )
    elif not is_blocked:
        fix = "fix the cause; the traceback is evidence"
    elif capture.manifest.devices:
        fix = "see log.txt in the capture's folder of the store"
    else:  # it never started, and left no log
        fix = "run it again"
    finding = Finding(
        _FAILURE_CODES[is_baseline, is_blocked],
        message,
        fix,
        stage=stage,
        place=failure.place,
        evidence={
            "traceback": _without_folders(failure.traceback),
            "capture": capture.folder.name,
            **{name: value for name in _RAISED if (value := getattr(failure, name))},
        },
    )
    return verdict_of(Outcome.BLOCKED if is_blocked else Outcome.FAIL, finding)


def _without_folders(traceback: str) -> str:
    """Cut the names of files in a traceback to begin with their package: no machine's folders."""
    return _FOLDERS.sub(r'File "\1/', traceback)


def not_applicable(baseline: Capture, candidate: Capture) -> Verdict | None:
    """NOT_APPLICABLE where the platform cannot run what was asked for, else None.

    Either the model runner or a setting that was asked for is not in effect, or a CPU lacks a
    kernel of the model at PP=1 too and PP=N did not fail of anything else.
    """
    for capture in (candidate, baseline):
        if (finding := _other_setting(capture) or _other_runner(capture)) is not None:
            return verdict_of(Outcome.NOT_APPLICABLE, finding)
    kernel = _lacking(baseline)
    if kernel is None or (candidate.status is Status.FAILED and _lacking(candidate) is None):
        return None
    assert baseline.failure is not None  # it lacks a kernel
    finding = Finding(
        "ENG007",
        f"the CPU build of vLLM lacks a kernel of this model, at PP=1 too: {kernel}",
        ELSEWHERE,
        Severity.INFO,
        place=baseline.failure.place,
        evidence={"traceback": _without_folders(baseline.failure.traceback)},
    )
    return verdict_of(Outcome.NOT_APPLICABLE, finding)


def _other_setting(capture: Capture) -> Finding | None:
    """ENG006 for a setting that was asked for and that a platform has dropped without a word.

    vLLM turns values into others that mean the same or nearly so: such a one is in effect.
    """
    effective = capture.manifest.effective
    kept = dict(effective.engine_args) if effective is not None else {}
    for name, value in capture.cell.engine_args:
        has = kept.get(name, value)
        is_dropped = value not in _NONE and has in _NONE
        if is_dropped or (value, has) == ("false", "true"):
            return _not_in_effect(
                f"{name}={value} was asked for and vLLM runs without it here",
                "leave it out, or use a release or device that has it",
            )
    return None


def _other_runner(capture: Capture) -> Finding | None:
    """ENG006 for a model runner that was asked for and is not in effect."""
    asked, failure = capture.cell.runner, capture.failure
    if asked is ModelRunner.AUTO:
        return None
    in_effect = sorted({trace.adapter for trace in capture.stages.values()})
    refused = _RUNNER_REFUSED.search(failure.error) if failure is not None else None
    if not in_effect and refused is not None:
        reason = f"vLLM refuses it: {refused[0].strip()}"
    elif in_effect and in_effect != [asked]:
        reason = f"{' and '.join(in_effect)} is in effect"
    else:
        return None
    return _not_in_effect(
        f"the model runner {asked} was asked for and {reason}",
        "leave --pp-runner out, or use a release or device that has this runner",
    )


def _not_in_effect(message: str, fix: str) -> Finding:
    return Finding("ENG006", message, fix, Severity.INFO)


def _lacking(capture: Capture) -> str | None:
    """Name the kernel for want of which an engine failed on a CPU, None if it did not."""
    if capture.cell.device is not Device.CPU or capture.status is not Status.FAILED:
        return None
    return missing_kernel(capture.failure) if capture.failure is not None else None


def _effective(capture: Capture) -> dict[str, Any]:
    assert capture.manifest.effective is not None  # the engine ran to its end
    return asdict(capture.manifest.effective)


def compare_engines(baseline: Capture, candidate: Capture) -> Verdict:
    """Judge whether both engines ran and were, but for PP, the same engine."""
    aside = not_applicable(baseline, candidate)
    if aside is not None:
        return aside
    failures = [
        failure
        for capture in (candidate, baseline)
        if (failure := engine_failure(capture)) is not None
    ]
    if failures:
        crashed = any(failure.outcome is Outcome.FAIL for failure in failures)
        return Verdict(
            Outcome.FAIL if crashed else Outcome.BLOCKED,
            "; ".join(failure.summary for failure in failures),
            tuple(finding for failure in failures for finding in failure.findings),
        )
    before, after, asked = _effective(baseline), _effective(candidate), candidate.cell
    findings = [
        Finding(
            "ENG003",
            f"{name} is {after[name]} at PP={asked.pp} and {before[name]} at PP=1",
            "the two cells are not comparable; see the effective configuration in the report",
            evidence={"baseline": before, "candidate": after},
        )
        for name in _PARITY
        if before[name] != after[name]
    ]
    if any(after[name] != getattr(asked, name) for name in ("pp", "tp", "dtype")):
        findings.append(
            Finding(
                "ENG003",
                f"the engine runs PP={after['pp']} TP={after['tp']} {after['dtype']}, asked for "
                f"PP={asked.pp} TP={asked.tp} {asked.dtype}",
                "this pin or platform does not give what was asked for",
                evidence={"effective": after},
            )
        )
    runners = sorted({trace.runner for trace in candidate.stages.values()})
    split = f"layer split {after['partition']}" if after["partition"] else "vLLM's own layer split"
    return judged(findings, f"ran on {', '.join(runners) or 'no traced runner'}, {split}")


register(
    Check(
        name=ENGINE,
        order=10,
        needs=Need(0),
        judge=lambda pair: compare_engines(pair.baseline, pair.candidate),
    )
)
