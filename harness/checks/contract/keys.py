"""One key at one boundary: presence in both directions, then form, then content."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...capture.record import RankTrace, StepTrace
from ..finding import Finding

# How many steps a finding's evidence names; the rest is counted.
EXAMPLES = 3
# The steps of a sender, each with the receiver's; None where that step was never whole.
Pairs = Sequence[tuple[StepTrace, StepTrace | None]]

_CHANGES = {
    "CON006": ("changes shape", "declare and send the same shape"),
    "CON007": ("changes dtype", "declare and send the same dtype"),
    "CON008": ("changes content", "do not write to a tensor that is on its way"),
}


def key_findings(boundary: str, pairs: Pairs, receiver: RankTrace) -> list[Finding]:
    """Judge every key that was sent over a boundary, declared behind it, or read there.

    Whether the receiver reads is not judged where reads were not seen (compiled code).
    """
    keys = set(receiver.declared or {})
    for sender_step, step in pairs:
        keys |= set(sender_step.sent or {}) | set(step.reads if step is not None else ())
    findings: list[Finding] = []
    for key in sorted(keys):
        findings += _presence(key, boundary, pairs, receiver)
        findings += _form_and_content(key, boundary, pairs, receiver)
    return findings


def relay_findings(trace: RankTrace) -> list[Finding]:
    """Judge the keys that a middle stage passes on: whole, or it computes them anew.

    A key whose rows leave as they arrived in some steps, and changed in others, is neither.
    """
    rows: dict[str, list[tuple[int, bool]]] = {}
    for step in trace.steps:
        for key, left in (step.sent or {}).items():
            came = (step.copied or {}).get(key)
            digests = [form.get("digest") or () for form in (came, left) if form]
            if len(digests) == 2 and len(digests[0]) == len(digests[1]):
                pairs = zip(*digests, strict=True)
                rows.setdefault(key, []).extend((step.index, a == b) for a, b in pairs)
    findings = []
    for key, passed_on in sorted(rows.items()):
        changed = [index for index, is_equal in passed_on if not is_equal]
        if 0 < len(changed) < len(passed_on):
            findings.append(
                Finding(
                    "CON016",
                    f"stage {trace.stage} passes '{key}' on unchanged in "
                    f"{len(passed_on) - len(changed)} of {len(passed_on)} rows, and changed in the "
                    f"others, first in step {changed[0]}",
                    "pass on what arrived, in every step and row",
                    stage=trace.stage,
                    key=key,
                    evidence={"steps": sorted(set(changed))[:EXAMPLES]},
                )
            )
    return findings


def none_finding(stage: int, key: str) -> Finding:
    """Finding of a stage that packs None in the place of a tensor."""
    return Finding(
        "CON004",
        f"stage {stage} packs None as '{key}' into IntermediateTensors",
        "leave the key out when there is no tensor, and out of the declaration too",
        stage=stage,
        boundary=f"{stage}->{stage + 1}",
        key=key,
    )


def _presence(key: str, boundary: str, steps: Pairs, receiver: RankTrace) -> list[Finding]:
    """Declared, sent, received and read must agree, whichever side names the key."""
    stage, declared = receiver.stage, receiver.declared or {}
    sent = [sender for sender, _ in steps if key in (sender.sent or {})]
    pairs = [(sender, step) for sender, step in steps if step is not None]
    reads = [step.reads[key] for _, step in pairs if key in step.reads]
    delivered = [step for sender, step in pairs if key in (sender.sent or {})]
    unread = sum(key not in step.reads for step in delivered)
    lost = [sender.index for sender, step in pairs if _is_lost(key, declared, sender, step)]
    is_sent, unsent = f"'{key}' is sent over {boundary}", len(steps) - len(sent)
    evidence = {"steps": len(steps), "sent": len(sent), "read": len(reads)}
    missed = (
        f"in {len(delivered)} steps but stage {stage} reads it in {len(delivered) - unread} only"
        if reads
        else f"but stage {stage} never reads it"
    )
    cases: tuple[tuple[object, str, str, str], ...] = (
        (
            sent and key not in declared,
            "CON003",
            f"{is_sent} but stage {stage} does not declare it",
            "add the key to make_empty_intermediate_tensors, or stop sending it",
        ),
        (
            key in declared and unsent,
            "CON002",
            f"'{key}' is declared by stage {stage} but not sent over {boundary} in {unsent} of "
            f"{len(steps)} steps" + (": its buffer holds stale content" if pairs else ""),
            "send the key in every step, or drop it from the declaration",
        ),
        (
            receiver.eager and unread,
            "CON001",
            f"{is_sent} {missed}",
            "read the key from intermediate_tensors in every step"
            if reads
            else "read the key from intermediate_tensors on every stage after the first "
            "(and relay it), or stop sending it",
        ),
        (
            lost,
            "CON013",
            f"{is_sent} but does not arrive at stage {stage} in {len(lost)} of {len(pairs)} steps",
            "what is sent and declared must reach the buffer that the forward reads",
        ),
    )
    packs_none = any((sender.sent or {})[key] is None for sender in sent)
    findings = [none_finding(stage - 1, key)] if packs_none else []
    return findings + [
        Finding(
            code,
            message,
            fix,
            stage=stage,
            boundary=boundary,
            key=key,
            place=reads[0] if reads else None,
            evidence=evidence | ({"lost": lost[:EXAMPLES]} if code == "CON013" else {}),
        )
        for is_case, code, message, fix in cases
        if is_case
    ]


def _is_lost(key: str, declared: Mapping[str, Any], sender: StepTrace, step: StepTrace) -> bool:
    """Whether a tensor that was sent is missing where the receiver was seen to hold tensors."""
    received = step.received is None or key in step.received
    copied = step.copied is None or key in step.copied or key not in declared
    return (sender.sent or {}).get(key) is not None and not (received and copied)


def _form_and_content(key: str, boundary: str, steps: Pairs, receiver: RankTrace) -> list[Finding]:
    """Shape and dtype must be those declared, and the content equal from return to copy."""
    declared = (receiver.declared or {}).get(key)
    pairs = [(sender, step) for sender, step in steps if step is not None]
    mismatches: dict[tuple[str, str, str], list[Any]] = {}
    for sender, step in pairs:
        if sender.spans != step.spans:
            continue  # CON012 says so; there is nothing to pair
        # In the order in which the tensor travels.
        stations = [
            ("returned", (sender.returned or {}).get(key)),
            ("sent", (sender.sent or {}).get(key)),
            ("received", (step.received or {}).get(key)),
            ("copied", (step.copied or {}).get(key)),
        ]
        known = [(name, form) for name, form in stations if form and "shape" in form]
        sent = dict(known).get("sent")
        if sent is None:
            continue
        if declared and "shape" in declared:
            for code, values in _form_changes(declared, sent):
                mismatches.setdefault((code, "declared", "sent"), []).append(values)
        rows = sum(span.count for span in sender.spans)
        for (before, first), (after, second) in pairwise(known):
            changes = _form_changes(first, second)[:1]
            if not changes and _content_changes(first, second, rows):
                changes = [("CON008", {"step": sender.index, "row": _first_row(first, second)})]
            for code, example in changes:
                mismatches.setdefault((code, before, after), []).append(example)
    return [
        Finding(
            code,
            f"'{key}' {_CHANGES[code][0]} over {boundary} between {before} and {after} "
            f"in {len(examples)} of {len(pairs)} steps: {examples[0]}",
            _CHANGES[code][1],
            stage=receiver.stage if after in ("received", "copied") else receiver.stage - 1,
            boundary=boundary,
            key=key,
            evidence={"from": before, "to": after, "examples": examples[:EXAMPLES]},
        )
        for (code, before, after), examples in sorted(mismatches.items())
    ]


def _form_changes(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, Any]]:
    """Codes of the parts of two forms that differ, each with both values; rows may differ."""
    changes: list[tuple[str, Any]] = []
    if first["shape"][1:] != second["shape"][1:]:
        changes.append(("CON006", [first["shape"][1:], second["shape"][1:]]))
    if first["dtype"] != second["dtype"]:
        changes.append(("CON007", [first["dtype"], second["dtype"]]))
    return changes


def _content_changes(first: dict[str, Any], second: dict[str, Any], rows: int) -> bool:
    too_few = min(first["shape"][0], second["shape"][0]) < rows
    return too_few or first.get("digest") != second.get("digest")


def _first_row(first: dict[str, Any], second: dict[str, Any]) -> int | None:
    pairs = zip(first.get("digest") or (), second.get("digest") or (), strict=False)
    return next((row for row, (a, b) in enumerate(pairs) if a != b), None)
