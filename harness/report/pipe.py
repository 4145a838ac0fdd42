"""The contract of a point as stages with wires between them: which key gets through, which not."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..checks.finding import Severity
from .view import FindingView, PointView


@dataclass(frozen=True)
class Wire:
    """A key at a boundary. `state` is ok, bad, warn or idle, `note` says why in few words.

    `sent` and `read` are steps, None where the report does not tell; so is `declared`.
    """

    key: str
    form: str
    declared: bool | None
    sent: int | None
    read: int | None
    steps: int | None
    bytes_per_token: int | None
    state: str
    note: str
    findings: tuple[FindingView, ...]


@dataclass(frozen=True)
class Boundary:
    """The keys between two stages."""

    sender: str
    receiver: str
    wires: tuple[Wire, ...]

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a token carries over it, as far as they are known."""
        return sum(wire.bytes_per_token or 0 for wire in self.wires)


@dataclass(frozen=True)
class Pipe:
    """All stages (number -> its layers in words, empty if unknown) and all boundaries, in order."""

    stages: dict[str, str]
    boundaries: tuple[Boundary, ...]


def pipe(point: PointView, check: str, findings: Iterable[FindingView]) -> Pipe | None:
    """Draw a check of a point; None where its report has no boundaries to draw."""
    figures = point.verdicts[check].figures
    drawn = figures.get("boundaries") or _from_costs(figures.get("boundary_costs", ()))
    if not drawn:
        return None
    by_key: dict[tuple[str | None, str | None], list[FindingView]] = defaultdict(list)
    for finding in findings:
        if finding.point == point.name and finding.record.check == check:
            by_key[finding.record.boundary, finding.record.key].append(finding)
    layers = {str(stage["stage"]): _layers(stage["layers"]) for stage in figures.get("stages", ())}
    boundaries = []
    for boundary in drawn:
        name, steps = boundary["boundary"], boundary["steps"]
        sender, receiver = name.split("->")
        layers = {**layers, sender: layers.get(sender, ""), receiver: layers.get(receiver, "")}
        wires = (_wire(key, steps, by_key[name, key["key"]]) for key in boundary["keys"])
        boundaries.append(Boundary(sender, receiver, tuple(wires)))
    return Pipe(layers, tuple(boundaries))


def _from_costs(costs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Read the boundaries of a report from before they were drawn: cost and read."""
    boundaries: dict[str, list[dict[str, Any]]] = {}
    for cost in costs:
        boundaries.setdefault(cost["boundary"], []).append(
            {
                "key": cost["key"],
                "unused": cost["unused"],
                "bytes_per_token": cost["bytes_per_token"],
                "read": None if cost["read"] else 0,
            }
        )
    return [{"boundary": name, "steps": None, "keys": keys} for name, keys in boundaries.items()]


def _wire(key: Mapping[str, Any], steps: int | None, findings: list[FindingView]) -> Wire:
    state, note = _state(key, steps)
    errors = [f.record.code for f in findings if f.record.severity is Severity.ERROR]
    if errors and state != "bad":
        state, note = "bad", ", ".join(errors)
    shape = key.get("shape")
    return Wire(
        key=key["key"],
        form="" if shape is None else f"{key['dtype']} {'x'.join(map(str, shape))}",
        declared=key.get("declared"),
        sent=key.get("sent"),
        read=key.get("read"),
        steps=steps,
        bytes_per_token=key["bytes_per_token"],
        state=state,
        note=note,
        findings=tuple(findings),
    )


def _state(key: Mapping[str, Any], steps: int | None) -> tuple[str, str]:
    sent, read, declared = key.get("sent"), key.get("read"), key.get("declared")
    unused = key["unused"]
    if key.get("none"):
        return "bad", "None is packed"
    if steps == 0:
        return "idle", "no step ran"
    if sent and declared is False:
        return "bad", "sent, not declared"
    if sent == 0:
        return ("bad", "declared, never sent: stale") if declared else ("bad", "read, never sent")
    if read == 0 and key.get("copied") == 0:
        # As when another key ended the engine; where it is this one's fault, a finding says so.
        return "idle", "sent, not copied"
    if read == 0:
        return "bad", "dropped: sent, never read"
    if steps is not None and sent is not None and read is not None:
        if sent < steps:
            return "bad", f"sent in {sent} of {steps} steps"
        if read < sent:
            return "bad", f"read in {read} of {sent} steps"
    if unused == 1.0:
        return "warn", "read, none of it used"
    return "ok", f"{unused:.0%} used by no later stage" if unused else ""


def _layers(span: list[int] | None) -> str:
    if span is None:
        return "no layers"
    first, last = span
    return f"layer {first}" if first == last else f"layers {first} to {last}"
