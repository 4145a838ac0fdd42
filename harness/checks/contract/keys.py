"""One key at one boundary: presence in both directions, then form, then content."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
        traffic = _KeyTraffic(key, boundary, receiver, pairs)
        findings += _presence(traffic) + _form_and_content(traffic)
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


@dataclass(frozen=True)
class _KeyTraffic:
    """A key at a boundary over all traced steps of the sender."""

    key: str
    boundary: str
    receiver: RankTrace
    steps: Pairs

    @property
    def stage(self) -> int:
        """The stage that receives."""
        return self.receiver.stage

    @property
    def declared(self) -> dict[str, Any]:
        """Every key that the receiver declares, with its form."""
        return self.receiver.declared or {}

    @cached_property
    def pairs(self) -> list[tuple[StepTrace, StepTrace]]:
        """The steps that both sides ran."""
        return [(sender, step) for sender, step in self.steps if step is not None]

    @cached_property
    def sent(self) -> list[StepTrace]:
        """The sender's steps with the key."""
        return [sender for sender, _ in self.steps if self.key in (sender.sent or {})]

    @cached_property
    def reads(self) -> list[str]:
        """The place of each step's first read of the key."""
        return [step.reads[self.key] for _, step in self.pairs if self.key in step.reads]

    @cached_property
    def unread(self) -> int:
        """How many steps sent the key to a step that did not read it."""
        return sum(self.key not in step.reads for _, step in self._delivered)

    @cached_property
    def delivered(self) -> int:
        """How many steps that both sides ran sent the key."""
        return len(self._delivered)

    @property
    def _delivered(self) -> list[tuple[StepTrace, StepTrace]]:
        return [pair for pair in self.pairs if self.key in (pair[0].sent or {})]

    @cached_property
    def lost(self) -> list[int]:
        """Steps whose tensor is missing where the receiver was seen to hold tensors."""
        return [
            sender.index
            for sender, step in self.pairs
            if (sender.sent or {}).get(self.key) is not None and not self._arrived(step)
        ]

    def _arrived(self, step: StepTrace) -> bool:
        received = step.received is None or self.key in step.received
        copied = step.copied is None or self.key in step.copied or self.key not in self.declared
        return received and copied

    def finding(self, code: str, message: str, fix: str, **evidence: object) -> Finding:
        """Build a finding of the receiver, at the place that reads the key."""
        return Finding(
            code,
            message,
            fix,
            stage=self.stage,
            boundary=self.boundary,
            key=self.key,
            place=self.reads[0] if self.reads else None,
            evidence={
                "steps": len(self.steps),
                "sent": len(self.sent),
                "read": len(self.reads),
                **evidence,
            },
        )


def _presence(traffic: _KeyTraffic) -> list[Finding]:
    """Declared, sent, received and read must agree, whichever side names the key."""
    key, stage, steps = traffic.key, traffic.stage, len(traffic.steps)
    is_sent = f"'{key}' is sent over {traffic.boundary}"
    findings: list[Finding] = []
    if any((step.sent or {})[key] is None for step in traffic.sent):
        findings.append(none_finding(stage - 1, key))
    if traffic.sent and key not in traffic.declared:
        findings.append(
            traffic.finding(
                "CON003",
                f"{is_sent} but stage {stage} does not declare it",
                "add the key to make_empty_intermediate_tensors, or stop sending it",
            )
        )
    if key in traffic.declared and len(traffic.sent) < steps:
        findings.append(
            traffic.finding(
                "CON002",
                f"'{key}' is declared by stage {stage} but not sent over {traffic.boundary} in "
                f"{steps - len(traffic.sent)} of {steps} steps"
                + (": its buffer holds stale content" if traffic.pairs else ""),
                "send the key in every step, or drop it from the declaration",
            )
        )
    if traffic.receiver.eager and traffic.unread:
        findings.append(_unread(traffic, is_sent))
    if traffic.lost:
        findings.append(
            traffic.finding(
                "CON013",
                f"{is_sent} but does not arrive at stage {stage} in "
                f"{len(traffic.lost)} of {len(traffic.pairs)} steps",
                "what is sent and declared must reach the buffer that the forward reads",
                lost=traffic.lost[:EXAMPLES],
            )
        )
    return findings


def _unread(traffic: _KeyTraffic, is_sent: str) -> Finding:
    if not traffic.reads:
        return traffic.finding(
            "CON001",
            f"{is_sent} but stage {traffic.stage} never reads it",
            "read the key from intermediate_tensors on every stage after the first "
            "(and relay it), or stop sending it",
        )
    return traffic.finding(
        "CON001",
        f"{is_sent} in {traffic.delivered} steps but stage {traffic.stage} reads it in "
        f"{traffic.delivered - traffic.unread} only",
        "read the key from intermediate_tensors in every step",
    )


def _form_and_content(traffic: _KeyTraffic) -> list[Finding]:
    """Shape and dtype must be those declared, and the content equal from return to copy."""
    key, declared = traffic.key, traffic.declared.get(traffic.key)
    mismatches: dict[tuple[str, str, str], list[Any]] = {}
    for sender, step in traffic.pairs:
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
            for code, examples in _form_changes(declared, sent):
                mismatches.setdefault((code, "declared", "sent"), []).append(examples)
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
            f"'{key}' {_CHANGES[code][0]} over {traffic.boundary} between {before} and {after} "
            f"in {len(examples)} of {len(traffic.pairs)} steps: {examples[0]}",
            _CHANGES[code][1],
            stage=traffic.stage if after in ("received", "copied") else traffic.stage - 1,
            boundary=traffic.boundary,
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
