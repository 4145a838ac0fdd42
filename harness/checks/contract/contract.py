"""The tensor-key contract between neighbouring stages: declared, sent, received, copied, read.

Both directions are checked, never only one side's keys, because vLLM's two model runners are
silent in opposite directions: V1 copies what was *sent* (a key that was not sent stays stale),
V2 copies what was *declared* (an extra key is dropped).
"""

from collections.abc import Iterable
from dataclasses import asdict
from functools import partial

from ...capture.manifest import Status
from ...capture.record import Capture, RankTrace
from ..finding import Finding, Outcome, Severity, Verdict, judged
from ..registry import Check, Need, register
from .boundaries import contract_figures
from .boundary_cost import boundary_costs, cost_findings
from .deadlock import deadlocks
from .keys import EXAMPLES, key_findings, none_finding, relay_findings
from .tp_agreement import disagreements


def compare_contract(capture: Capture) -> Verdict:
    """Judge every boundary of a capture at PP >= 2 over all its traced steps and dummy runs.

    With tensor parallelism each rank of a stage is compared with its counterpart in the next, and
    with rank 0 of its own stage.

    A boundary at which the engine stood still for want of a tensor is a finding of its own.
    The verdict is blocked when a stage left no heartbeat, or the tracer saw no step, or a step
    without its sending or its arrival, unless what it did see already shows a cause.
    """
    stages, ranks = capture.stages, capture.ranks
    pp, tp = capture.cell.pp, capture.cell.tp
    causes = [
        finding
        for stage in sorted(stages)
        for finding in (
            *_misuses(stages[stage], survived=capture.status is Status.OK),
            *_nones_in_dummies(stages[stage], pp),
        )
    ]
    causes += deadlocks(capture)
    unseen = _unseen(capture, pp, tp)
    if unseen is not None:
        figures = contract_figures(stages, pp)
        causes += _seen_before_the_end(capture, pp)
        if not causes:
            return Verdict(Outcome.BLOCKED, unseen, (), figures)
        return judged(_unique(causes), "", **figures)
    for tp_rank in range(tp):
        for stage in range(pp - 1):
            causes += _boundary(ranks[stage, tp_rank], ranks[stage + 1, tp_rank])
        for stage in range(1, pp - 1):
            causes += relay_findings(ranks[stage, tp_rank])
        for stage in range(pp):
            causes += disagreements(stages[stage], ranks[stage, tp_rank])
    costs = boundary_costs(stages)
    senders = [stages[stage] for stage in range(pp - 1)]
    crossings = sum(len(sender.steps) for sender in senders)
    sent = {key for sender in senders for step in sender.steps for key in step.sent or ()}
    return judged(
        _unique(causes) + cost_findings(costs),
        f"{crossings} crossings of {pp - 1} {'boundary' if pp == 2 else 'boundaries'} agree on "
        f"{', '.join(sorted(sent))}",
        boundary_costs=[asdict(cost) for cost in costs],
        **contract_figures(stages, pp, costs),
    )


register(
    Check(
        name="contract",
        order=20,
        needs=Need.BOUNDARY,
        judge=lambda pair: compare_contract(pair.candidate),
    )
)


def _unseen(capture: Capture, pp: int, tp: int) -> str | None:
    """Why the trace is not enough to judge a boundary, None if it is."""
    if capture.status is not Status.OK:
        return "the engine failed before a boundary was crossed"
    for stage in range(pp):
        trace = capture.stages.get(stage)
        if trace is None:
            return f"no heartbeat from stage {stage}: it was not traced"
        if not trace.steps:
            return "no probe step was traced"
        steps = len(trace.steps)
        left = sum(step.sent is not None for step in trace.steps)
        arrived = sum(step.received is not None or step.copied is not None for step in trace.steps)
        if stage < pp - 1 and left < steps:
            return f"tensors were seen to leave stage {stage} in {left} of {steps} steps"
        if stage > 0 and arrived < steps:
            return f"tensors were seen to arrive at stage {stage} in {arrived} of {steps} steps"
        for tp_rank in range(1, tp):
            if (stage, tp_rank) not in capture.ranks:
                return f"no heartbeat from tensor-parallel rank {tp_rank} of stage {stage}"
    return None


def _seen_before_the_end(capture: Capture, pp: int) -> list[Finding]:
    """Findings about the tensors that the stages of a failed engine had sent on.

    Which keys leave a stage is known once they have left. Of the receiver's step nothing is whole
    unless it has sent on in turn.
    """
    findings: list[Finding] = []
    for stage in range(pp - 1 if capture.status is Status.FAILED else 0):
        sender, receiver = capture.stages.get(stage), capture.stages.get(stage + 1)
        if sender is None or receiver is None or receiver.declared is None:
            continue
        passed_on = {step.index: step for step in receiver.steps if step.sent is not None}
        left = [(s, passed_on.get(s.index)) for s in sender.steps if s.sent is not None]
        findings += key_findings(f"{stage}->{stage + 1}", left, receiver)
    return findings


def _unique(findings: list[Finding]) -> list[Finding]:
    """Drop findings of equal code, boundary, key and message but the first, in order."""
    kept = {(f.code, f.boundary, f.key, f.message): f for f in reversed(findings)}
    return list(reversed(kept.values()))


def _misuses(trace: RankTrace, *, survived: bool) -> Iterable[Finding]:
    """Yield each use of IntermediateTensors that it does not support, once.

    A forward that survived it has only asked (`hasattr`, a default, an exception that it caught):
    worth a warning, because what it asked for was not there.
    """
    misuses = ((misuse["what"], misuse["key"], misuse["place"]) for misuse in trace.misuses)
    for what, key, place in dict.fromkeys(misuses):
        if what == "missing-attribute":
            code = "CON005"
            does = f"calls IntermediateTensors.{key}, which does not exist"
            fix = "read keys with intermediate_tensors[key]"
        else:
            code = "CON009"
            does = f"reads '{key}', which it was not given"
            fix = "declare the key in make_empty_intermediate_tensors and send it"
        only_asked = survived or what == "absent-key"
        yield Finding(
            code,
            f"stage {trace.stage} {does}",
            fix,
            Severity.WARNING if only_asked else Severity.ERROR,
            stage=trace.stage,
            key=key,
            place=place,
        )


def _nones_in_dummies(trace: RankTrace, pp: int) -> Iterable[Finding]:
    """Yield the keys that a stage returned as None while the engine warmed up."""
    keys = {key for dummy in trace.dummies for key, value in dummy["keys"].items() if value is None}
    for key in sorted(keys) if trace.stage < pp - 1 else ():
        yield none_finding(trace.stage, key)


def _boundary(sender: RankTrace, receiver: RankTrace) -> list[Finding]:
    boundary = f"{sender.stage}->{receiver.stage}"
    undeclared = partial(Finding, "CON010", stage=receiver.stage, boundary=boundary)
    out_of_step = partial(Finding, "CON012", boundary=boundary)
    findings: list[Finding] = []
    if receiver.declared is None or receiver.declared_error:
        findings.append(
            undeclared(
                f"stage {receiver.stage} declares no keys: {receiver.declared_error}",
                "give the model (and its wrapper) make_empty_intermediate_tensors",
            )
        )
    findings += [
        undeclared(
            f"stage {receiver.stage} declares '{key}' and makes no tensor for it",
            "make an empty tensor for every key that make_empty_intermediate_tensors returns",
            key=key,
        )
        for key, value in sorted((receiver.declared or {}).items())
        if value is None
    ]
    pairs = list(zip(sender.steps, receiver.steps, strict=False))
    findings += key_findings(boundary, pairs, receiver)
    if len(sender.steps) != len(receiver.steps):
        findings.append(
            out_of_step(
                f"stage {sender.stage} ran {len(sender.steps)} traced steps, stage "
                f"{receiver.stage} ran {len(receiver.steps)}",
                "every stage must run every step",
            )
        )
    apart = [before.index for before, after in pairs if before.spans != after.spans]
    if apart:
        findings.append(
            out_of_step(
                f"stages {sender.stage} and {receiver.stage} ran different rows in {len(apart)} "
                f"of {len(pairs)} steps, first in step {apart[0]}",
                "every stage must run every step on the same tokens",
                evidence={"steps": apart[:EXAMPLES]},
            )
        )
    return findings
