"""Whether the engine ran, cut as asked, and was what was asked for."""

import re
from dataclasses import asdict
from typing import Any

from ..capture.record import Capture
from ..engine.settings import ModelRunner
from .finding import Finding, Outcome, Severity, Verdict, judged

# What the parity profile needs to be equal between PP sizes.
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
)


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


def _without_folders(traceback: str) -> str:
    """Return a traceback that names files from their package on, without this machine's folders."""
    return _FOLDERS.sub(r'File "\1/', traceback)


def engine_failure(capture: Capture) -> Verdict | None:
    """Return the verdict on a capture without an answer, None if it is whole.

    An exception with a cause is a failure of the engine; silence is blocked. The baseline has
    codes of its own, so that "PP=1 is broken too" is never taken for "PP=N is broken".
    """
    failure = capture.failure
    if capture.status == "ok" or failure is None:
        return None
    stage = None
    if failure.rank is not None:  # vLLM numbers tensor-parallel ranks within a stage
        stage = failure.rank // capture.cell.tp
    at = f"stage {stage}" if stage is not None else "the engine"
    message = f"{at}, {failure.phase}: {failure.error}"
    baseline = capture.cell.pp == 1
    if baseline:
        message = f"the baseline (PP=1) has no answer: {message}"
    blocked = capture.status == "blocked"
    cure = "fix the cause; the traceback is evidence"
    if blocked:
        written = bool(capture.manifest.devices)
        cure = "see log.txt in the capture's folder of the store" if written else "run it again"
    finding = Finding(
        _FAILURE_CODES[baseline, blocked],
        Severity.ERROR,
        message,
        cure,
        rank=stage,
        place=failure.place,
        evidence={
            "traceback": _without_folders(failure.traceback),
            "capture": capture.folder.name,
            # Where each rank was, and the innermost frames of those that could still say so.
            **({"ranks": failure.ranks} if failure.ranks else {}),
            **({"stacks": failure.stacks} if failure.stacks else {}),
        },
    )
    outcome = Outcome.BLOCKED if blocked else Outcome.FAIL
    return Verdict(outcome, message, (finding,))


def not_applicable(baseline: Capture, candidate: Capture) -> Verdict | None:
    """Return the verdict where the model runner that was asked for is not in effect, else None."""
    for capture in (candidate, baseline):
        asked = capture.cell.runner
        if asked is ModelRunner.AUTO:
            continue
        seen = sorted({trace.adapter for trace in capture.stages.values()})
        failure = capture.failure
        refused = _RUNNER_REFUSED.search(failure.error) if failure is not None else None
        if not seen and refused is not None:
            reason = f"vLLM refuses it: {refused[0].strip()}"
        elif seen and seen != [asked]:
            reason = f"{' and '.join(seen)} is in effect"
        else:
            continue
        message = f"the model runner {asked} was asked for and {reason}"
        finding = Finding(
            "ENG006",
            Severity.INFO,
            message,
            "leave --pp-runner out, or use a release or device that has this runner",
        )
        return Verdict(Outcome.NOT_APPLICABLE, message, (finding,))
    return None


def _effective(capture: Capture) -> dict[str, Any]:
    """The configuration that a whole engine read back."""
    assert capture.manifest.effective is not None  # the engine ran to its end
    return asdict(capture.manifest.effective)


def compare_engines(baseline: Capture, candidate: Capture) -> Verdict:
    """Judge whether both engines ran and were, but for PP, the same engine."""
    if (verdict := not_applicable(baseline, candidate)) is not None:
        return verdict
    broken = [v for one in (candidate, baseline) if (v := engine_failure(one)) is not None]
    if broken:
        failed = any(verdict.outcome is Outcome.FAIL for verdict in broken)
        return Verdict(
            Outcome.FAIL if failed else Outcome.BLOCKED,
            "; ".join(verdict.summary for verdict in broken),
            tuple(finding for verdict in broken for finding in verdict.findings),
        )
    left, right, asked = _effective(baseline), _effective(candidate), candidate.cell
    findings = [
        Finding(
            "ENG003",
            Severity.ERROR,
            f"{name} is {right[name]} at PP={asked.pp} and {left[name]} at PP=1",
            "the two cells are not comparable; see the effective configuration in the report",
            evidence={"baseline": left, "candidate": right},
        )
        for name in _PARITY
        if left[name] != right[name]
    ]
    if any(right[name] != getattr(asked, name) for name in ("pp", "tp", "dtype")):
        findings.append(
            Finding(
                "ENG003",
                Severity.ERROR,
                f"the engine runs PP={right['pp']} TP={right['tp']} {right['dtype']}, asked for "
                f"PP={asked.pp} TP={asked.tp} {asked.dtype}",
                "this pin or platform does not give what was asked for",
                evidence={"effective": right},
            )
        )
    runners = sorted({trace.runner for trace in candidate.stages.values()})
    cut = right["partition"] or "the default cut"
    return judged(findings, f"ran on {', '.join(runners) or 'no traced runner'}, {cut}")
