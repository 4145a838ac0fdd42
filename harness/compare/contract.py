"""The tensor-key contract between neighbouring stages: declared, sent, received, copied, read.

Both directions are checked, never only one side's keys, because vLLM's two model runners are
silent in opposite directions: V1 copies what was *sent* (a key that was not sent stays stale),
V2 copies what was *declared* (an extra key is dropped).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from ..capture.record import Capture, RankTrace, StepTrace
from .boundaries import contract_figures
from .cost import boundary_costs, cost_findings
from .deadlock import deadlocks
from .finding import Finding, Outcome, Severity, Verdict, judged
from .parallel import disagreements

# How many steps and rows a finding's evidence names; the rest is counted.
_EXAMPLES = 3


def compare_contract(capture: Capture) -> Verdict:
    """Judge every boundary of a capture at PP >= 2 over all its traced steps and dummy runs.

    With tensor parallelism each rank of a stage is held against its counterpart in the next, and
    against rank 0 of its own stage.

    A boundary at which the engine stood still for want of a tensor is a finding of its own.
    The verdict is blocked when a stage left no heartbeat, or the tracer saw no step, no sending or
    no arrival, unless what it did see already shows a cause.
    """
    stages, ranks = capture.stages, capture.ranks
    pp, tp = int(capture.manifest["cell"]["pp"]), int(capture.manifest["cell"]["tp"])
    misuse = [
        finding
        for stage in sorted(stages)
        for finding in (
            *_misuses(stages[stage], survived=capture.status == "ok"),
            *_nones_in_dummies(stages[stage], pp),
        )
    ]
    misuse += deadlocks(capture)
    unseen = _unseen(capture, pp, tp)
    if unseen is not None:
        figures = contract_figures(stages, pp)
        if causes := misuse + _seen_before_the_end(capture, pp):
            return judged(causes, "", **figures)
        return Verdict(Outcome.BLOCKED, unseen, (), figures)
    findings = list(misuse)
    for tp_rank in range(tp):
        for stage in range(pp - 1):
            findings += _boundary(ranks[stage, tp_rank], ranks[stage + 1, tp_rank])
        for stage in range(pp):
            findings += disagreements(stages[stage], ranks[stage, tp_rank])
    costs = boundary_costs(stages)
    findings = _unique(findings) + cost_findings(costs)
    crossings = sum(len(stages[stage].steps) for stage in range(pp - 1))
    sent = {key for s in range(pp - 1) for step in stages[s].steps for key in step.sent or ()}
    return judged(
        findings,
        f"{crossings} crossings of {pp - 1} {'boundary' if pp == 2 else 'boundaries'} agree on "
        f"{', '.join(sorted(sent))}",
        boundary_costs=[asdict(cost) for cost in costs],
        **contract_figures(stages, pp, costs),
    )


def _unseen(capture: Capture, pp: int, tp: int) -> str | None:
    """Return what the tracer failed to see, so that no boundary can be judged; None if nothing."""
    if capture.status != "ok":
        return "the engine failed before a boundary was crossed"
    for stage in range(pp):
        trace = capture.stages.get(stage)
        if trace is None:
            return f"no heartbeat from stage {stage}: it was not traced"
        if not trace.steps:
            return "no probe step was traced"
        if stage < pp - 1 and not any(step.sent for step in trace.steps):
            return f"no tensor was seen to leave stage {stage}"
        if stage > 0 and all(step.received is None and step.copied is None for step in trace.steps):
            return f"no tensor was seen to arrive at stage {stage}"
        for tp_rank in range(1, tp):
            if (stage, tp_rank) not in capture.ranks:
                return f"no heartbeat from tensor-parallel rank {tp_rank} of stage {stage}"
    return None


def _seen_before_the_end(capture: Capture, pp: int) -> list[Finding]:
    """Return what does not fit in what the stages of a failed engine had sent on.

    Which keys leave a stage is known once they have left. Of the receiver's step nothing is whole
    unless it has sent on in turn.
    """
    findings: list[Finding] = []
    for stage in range(pp - 1 if capture.status == "failed" else 0):
        sender, receiver = capture.stages.get(stage), capture.stages.get(stage + 1)
        if sender is None or receiver is None or receiver.declared is None:
            continue
        passed_on = {step.index: step for step in receiver.steps if step.sent is not None}
        left = [(s, passed_on.get(s.index)) for s in sender.steps if s.sent is not None]
        sent_keys = {key for step, _ in left for key in step.sent or {}}
        for key in sorted(sent_keys | set(receiver.declared)):
            findings += _key(key, f"{stage}->{stage + 1}", receiver.declared, left, receiver)
    return findings


def _unique(findings: list[Finding]) -> list[Finding]:
    """Return one finding for each code, boundary, key and message, in order."""
    kept = {(one.code, one.boundary, one.key, one.message): one for one in reversed(findings)}
    return list(reversed(kept.values()))


def _misuses(trace: RankTrace, *, survived: bool) -> Iterable[Finding]:
    """Yield what the forward did that IntermediateTensors does not support, as it was seen.

    A forward that survived it has only asked (`hasattr`, a default, an exception that it caught):
    worth a warning, because what it asked for was not there.
    """
    seen = set()
    for misuse in trace.misuses:
        what, key, place = misuse["what"], misuse["key"], misuse["place"]
        if (what, key, place) in seen:
            continue
        seen.add((what, key, place))
        asked = survived or what == "absent-key"
        severity = Severity.WARNING if asked else Severity.ERROR
        if what == "missing-attribute":
            yield Finding(
                "CON005",
                severity,
                f"stage {trace.stage} calls IntermediateTensors.{key}, which does not exist",
                "read keys with intermediate_tensors[key]",
                rank=trace.stage,
                key=key,
                place=place,
            )
        else:
            yield Finding(
                "CON009",
                severity,
                f"stage {trace.stage} reads '{key}', which it was not given",
                "declare the key in make_empty_intermediate_tensors and send it",
                rank=trace.stage,
                key=key,
                place=place,
            )


def _nones_in_dummies(trace: RankTrace, pp: int) -> Iterable[Finding]:
    """Keys that a stage returned as None while the engine warmed up, before any real step."""
    if trace.stage == pp - 1:
        return
    keys = {key for dummy in trace.dummies for key, value in dummy["keys"].items() if value is None}
    for key in sorted(keys):
        yield _none_finding(trace.stage, key)


def _none_finding(stage: int, key: str) -> Finding:
    return Finding(
        "CON004",
        Severity.ERROR,
        f"stage {stage} packs None as '{key}' into IntermediateTensors",
        "leave the key out when there is no tensor, and out of the declaration too",
        rank=stage,
        boundary=f"{stage}->{stage + 1}",
        key=key,
    )


def _boundary(sender: RankTrace, receiver: RankTrace) -> list[Finding]:
    boundary = f"{sender.stage}->{receiver.stage}"
    findings: list[Finding] = []
    if receiver.declared is None or receiver.declared_error:
        findings.append(
            Finding(
                "CON010",
                Severity.ERROR,
                f"stage {receiver.stage} declares no keys: {receiver.declared_error}",
                "give the model (and its wrapper) make_empty_intermediate_tensors",
                rank=receiver.stage,
                boundary=boundary,
            )
        )
    declared = receiver.declared or {}
    findings += [
        Finding(
            "CON010",
            Severity.ERROR,
            f"stage {receiver.stage} declares '{key}' and makes no tensor for it",
            "make an empty tensor for every key that make_empty_intermediate_tensors returns",
            rank=receiver.stage,
            boundary=boundary,
            key=key,
        )
        for key, value in sorted(declared.items())
        if value is None
    ]
    pairs = list(zip(sender.steps, receiver.steps, strict=False))
    sent_keys = {key for step, _ in pairs for key in step.sent or {}}
    read_keys = {key for _, step in pairs for key in step.reads}
    for key in sorted(sent_keys | set(declared) | read_keys):
        findings += _key(key, boundary, declared, pairs, receiver)
    if len(sender.steps) != len(receiver.steps):
        findings.append(
            Finding(
                "CON012",
                Severity.ERROR,
                f"stage {sender.stage} ran {len(sender.steps)} traced steps, stage "
                f"{receiver.stage} ran {len(receiver.steps)}",
                "every stage must run every step",
                boundary=boundary,
            )
        )
    apart = [one.index for one, other in pairs if one.spans != other.spans]
    if apart:
        findings.append(
            Finding(
                "CON012",
                Severity.ERROR,
                f"stages {sender.stage} and {receiver.stage} ran different rows in {len(apart)} "
                f"of {len(pairs)} steps, first in step {apart[0]}",
                "every stage must run every step on the same tokens",
                boundary=boundary,
                evidence={"steps": apart[:_EXAMPLES]},
            )
        )
    return findings


def _key(
    key: str,
    boundary: str,
    declared: dict[str, Any],
    steps: Sequence[tuple[StepTrace, StepTrace | None]],
    trace: RankTrace,
) -> list[Finding]:
    """Judge one key at one boundary: presence in both directions, then form, then content.

    `steps` are those of the sender, each with the receiver's; None where that one was cut short.
    `trace` is the receiver's. Whether it reads is not judged where reads were not seen.
    """
    receiver = trace.stage
    pairs = [(one, other) for one, other in steps if other is not None]

    def finding(code: str, message: str, cure: str, **evidence: object) -> Finding:
        place = next((step.reads[key] for _, step in pairs if key in step.reads), None)
        return Finding(
            code,
            Severity.ERROR,
            message,
            cure,
            rank=receiver,
            boundary=boundary,
            key=key,
            place=place,
            evidence=evidence,
        )

    sent = [step for step, _ in steps if key in (step.sent or {})]
    read = [step for _, step in pairs if key in step.reads]
    seen = sum(key in (one.sent or {}) for one, _ in pairs)
    unread = [one for one, other in pairs if key in (one.sent or {}) and key not in other.reads]
    lost = [one.index for one, other in pairs if _is_lost(key, declared, one, other)]
    findings: list[Finding] = []
    if any((step.sent or {})[key] is None for step in sent):
        findings.append(_none_finding(receiver - 1, key))
    counts = {"steps": len(steps), "sent": len(sent), "read": len(read)}
    if sent and key not in declared:
        findings.append(
            finding(
                "CON003",
                f"'{key}' is sent over {boundary} but stage {receiver} does not declare it",
                "add the key to make_empty_intermediate_tensors, or stop sending it",
                **counts,
            )
        )
    if key in declared and len(sent) < len(steps):
        findings.append(
            finding(
                "CON002",
                f"'{key}' is declared by stage {receiver} but not sent over {boundary} in "
                f"{len(steps) - len(sent)} of {len(steps)} steps"
                + (": its buffer holds stale content" if pairs else ""),
                "send the key in every step, or drop it from the declaration",
                **counts,
            )
        )
    if trace.eager and unread and not read:
        findings.append(
            finding(
                "CON001",
                f"'{key}' is sent over {boundary} but stage {receiver} never reads it",
                "read the key from intermediate_tensors on every stage after the first "
                "(and relay it), or stop sending it",
                **counts,
            )
        )
    elif trace.eager and unread:
        findings.append(
            finding(
                "CON001",
                f"'{key}' is sent over {boundary} in {seen} steps but stage {receiver} "
                f"reads it in {seen - len(unread)} only",
                "read the key from intermediate_tensors in every step",
                **counts,
            )
        )
    if lost:
        findings.append(
            finding(
                "CON013",
                f"'{key}' is sent over {boundary} but does not arrive at stage {receiver} in "
                f"{len(lost)} of {len(pairs)} steps",
                "what is sent and declared must reach the buffer that the forward reads",
                **counts,
                lost=lost[:_EXAMPLES],
            )
        )
    return findings + _form_and_content(key, boundary, declared.get(key), pairs, receiver)


def _is_lost(key: str, declared: dict[str, Any], sender: StepTrace, receiver: StepTrace) -> bool:
    """Whether a tensor that was sent is missing where the receiver was seen to hold tensors."""
    if (sender.sent or {}).get(key) is None:
        return False
    arrived = receiver.received is None or key in receiver.received
    copied = receiver.copied is None or key in receiver.copied or key not in declared
    return not (arrived and copied)


def _form_and_content(
    key: str,
    boundary: str,
    declared: dict[str, Any] | None,
    pairs: list[tuple[StepTrace, StepTrace]],
    receiver: int,
) -> list[Finding]:
    """Shape and dtype against the declaration, and equal content from return to copy."""
    mismatches: dict[tuple[str, str, str], list[Any]] = {}
    for sender_step, receiver_step in pairs:
        if sender_step.spans != receiver_step.spans:
            continue  # CON012 says so; there is nothing to pair
        rows = sum(span.count for span in sender_step.spans)
        # In the order in which the tensor travels.
        stations = [
            ("returned", (sender_step.returned or {}).get(key)),
            ("sent", (sender_step.sent or {}).get(key)),
            ("received", (receiver_step.received or {}).get(key)),
            ("copied", (receiver_step.copied or {}).get(key)),
        ]
        known = [(name, value) for name, value in stations if value and "shape" in value]
        if not any(name == "sent" for name, _ in known):
            continue
        if declared and "shape" in declared:
            form = dict(known)["sent"]
            if form["shape"][1:] != declared["shape"][1:]:
                mismatches.setdefault(("CON006", "declared", "sent"), []).append(
                    [declared["shape"][1:], form["shape"][1:]]
                )
            if form["dtype"] != declared["dtype"]:
                mismatches.setdefault(("CON007", "declared", "sent"), []).append(
                    [declared["dtype"], form["dtype"]]
                )
        for (before, first), (after, second) in pairwise(known):
            if first["shape"][1:] != second["shape"][1:]:
                mismatches.setdefault(("CON006", before, after), []).append(
                    [first["shape"][1:], second["shape"][1:]]
                )
            elif first["dtype"] != second["dtype"]:
                mismatches.setdefault(("CON007", before, after), []).append(
                    [first["dtype"], second["dtype"]]
                )
            elif (
                first.get("digest") != second.get("digest")
                or min(first["shape"][0], second["shape"][0]) < rows
            ):
                mismatches.setdefault(("CON008", before, after), []).append(
                    {"step": sender_step.index, "row": _first_row(first, second)}
                )
    words = {
        "CON006": ("changes shape", "declare and send the same shape"),
        "CON007": ("changes dtype", "declare and send the same dtype"),
        "CON008": ("changes content", "do not write to a tensor that is on its way"),
    }
    return [
        Finding(
            code,
            Severity.ERROR,
            f"'{key}' {words[code][0]} over {boundary} between {before} and {after} "
            f"in {len(examples)} of {len(pairs)} steps: {examples[0]}",
            words[code][1],
            rank=receiver if after in ("received", "copied") else receiver - 1,
            boundary=boundary,
            key=key,
            evidence={"from": before, "to": after, "examples": examples[:_EXAMPLES]},
        )
        for (code, before, after), examples in sorted(mismatches.items())
    ]


def _first_row(first: dict[str, Any], second: dict[str, Any]) -> int | None:
    pairs = zip(first.get("digest") or (), second.get("digest") or (), strict=False)
    return next((row for row, (a, b) in enumerate(pairs) if a != b), None)
