"""One key at one boundary: presence in both directions, then form, then content."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ...capture.record import RankTrace, StepTrace
from ..finding import Finding, Severity

# How many steps a finding's evidence names; the rest is counted.
EXAMPLES = 3
# The steps of a sender, each with the receiver's; None where that one was cut short.
Pairs = Sequence[tuple[StepTrace, StepTrace | None]]


def key_findings(boundary: str, pairs: Pairs, receiver: RankTrace) -> list[Finding]:
    """Judge every key that was sent over a boundary, declared behind it, or read there.

    Whether the receiver reads is not judged where reads were not seen (compiled code).
    """
    keys = set(receiver.declared or {})
    for one, other in pairs:
        keys |= set(one.sent or {}) | set(other.reads if other is not None else ())
    return [found for key in sorted(keys) for found in _key(key, boundary, pairs, receiver)]


def none_finding(stage: int, key: str) -> Finding:
    """Return the finding of a stage that packs None in the place of a tensor."""
    return Finding(
        "CON004",
        Severity.ERROR,
        f"stage {stage} packs None as '{key}' into IntermediateTensors",
        "leave the key out when there is no tensor, and out of the declaration too",
        rank=stage,
        boundary=f"{stage}->{stage + 1}",
        key=key,
    )


def _key(key: str, boundary: str, steps: Pairs, trace: RankTrace) -> list[Finding]:
    receiver, declared = trace.stage, trace.declared or {}
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
        findings.append(none_finding(receiver - 1, key))
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
                lost=lost[:EXAMPLES],
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
            evidence={"from": before, "to": after, "examples": examples[:EXAMPLES]},
        )
        for (code, before, after), examples in sorted(mismatches.items())
    ]


def _first_row(first: dict[str, Any], second: dict[str, Any]) -> int | None:
    pairs = zip(first.get("digest") or (), second.get("digest") or (), strict=False)
    return next((row for row, (a, b) in enumerate(pairs) if a != b), None)
