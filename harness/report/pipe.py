"""The contract of a point as stages with wires between them: which key gets through, which not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .view import PointView, Shown


@dataclass(frozen=True)
class Wire:
    """One key at one boundary. `state` is ok, bad, warn or idle, `note` says why in few words.

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
    findings: tuple[Shown, ...]


@dataclass(frozen=True)
class Boundary:
    """What lies between two stages."""

    sender: str
    receiver: str
    wires: tuple[Wire, ...]

    @property
    def bytes_per_token(self) -> int:
        """Return what a token carries over it, in bytes, as far as it is known."""
        return sum(wire.bytes_per_token or 0 for wire in self.wires)


@dataclass(frozen=True)
class Pipe:
    """All stages (number -> its layers in words, empty if unknown) and all boundaries, in order."""

    stages: dict[str, str]
    boundaries: tuple[Boundary, ...]


def pipe(point: PointView, findings: Iterable[Shown]) -> Pipe | None:
    """Return the drawing of a point's contract; None where its report has nothing to draw."""
    figures = point.figures("contract")
    drawn = figures.get("boundaries") or _from_costs(figures.get("boundary_costs", ()))
    if not drawn:
        return None
    mine = [one for one in findings if one.point == point.id and one.record.check == "contract"]
    boundaries = tuple(_boundary(one, mine) for one in drawn)
    layers = {str(one["stage"]): _layers(one["layers"]) for one in figures.get("stages", ())}
    for boundary in boundaries:
        for stage in (boundary.sender, boundary.receiver):
            layers.setdefault(stage, "")
    return Pipe(layers, boundaries)


def _boundary(drawn: Mapping[str, Any], findings: list[Shown]) -> Boundary:
    name = drawn["boundary"]
    sender, receiver = name.split("->")
    wires = (
        _wire(key, drawn["steps"], [one for one in findings if _is_of(one, name, key["key"])])
        for key in drawn["keys"]
    )
    return Boundary(sender, receiver, tuple(wires))


def _from_costs(costs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return boundaries as a report from before they were drawn knows them: cost and read."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in costs:
        found.setdefault(one["boundary"], []).append(
            {
                "key": one["key"],
                "unused": one["unused"],
                "bytes_per_token": one["bytes_per_token"],
                "read": None if one["read"] else 0,
            }
        )
    return [{"boundary": name, "steps": None, "keys": keys} for name, keys in found.items()]


def _is_of(finding: Shown, boundary: str, key: str) -> bool:
    return finding.record.boundary == boundary and finding.record.key == key


def _wire(key: Mapping[str, Any], steps: int | None, findings: list[Shown]) -> Wire:
    sent, read, declared = key.get("sent"), key.get("read"), key.get("declared")
    state, note = _state(key, steps)
    errors = [one.record.code for one in findings if one.record.severity == "error"]
    if errors and state != "bad":
        state, note = "bad", ", ".join(errors)
    shape = key.get("shape")
    return Wire(
        key=key["key"],
        form="" if shape is None else f"{key['dtype']} {'x'.join(map(str, shape))}",
        declared=declared,
        sent=sent,
        read=read,
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
