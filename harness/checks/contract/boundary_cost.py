"""Cost of a boundary: bytes per token and key, and the share that no later stage uses."""

from dataclasses import dataclass
from math import prod

import numpy as np

from ...capture.record import RankTrace
from ..finding import Finding, Severity


@dataclass(frozen=True)
class KeyCost:
    """One key at one boundary, the one behind `stage`.

    `unused` is the share (0 to 1) of a token's elements that no later stage's forward used in the
    watched step; None where a later stage was not watched. `read` says that one asked for the key.
    """

    stage: int
    key: str
    bytes_per_token: int
    unused: float | None
    read: bool

    @property
    def boundary(self) -> str:
        """The boundary as findings name it."""
        return f"{self.stage}->{self.stage + 1}"

    @property
    def is_thrown_away(self) -> bool:
        """Whether a later stage reads the key, and none computes with any of it."""
        return self.read and self.unused == 1.0


def boundary_costs(stages: dict[int, RankTrace]) -> tuple[KeyCost, ...]:
    """Cost of every key at every boundary; `stages` holds each stage, 0 first.

    A stage that passes a key on without computing with it does not count as a user.
    """
    costs = []
    for stage in range(len(stages) - 1):
        for key, value in sorted((stages[stage].steps[0].sent or {}).items()):
            if value is None or "shape" not in value:
                continue
            later = [stages[number].steps[0] for number in range(stage + 1, len(stages))]
            elements = prod(value["shape"][1:])
            costs.append(
                KeyCost(
                    stage=stage,
                    key=key,
                    bytes_per_token=elements * _width(value["dtype"]),
                    unused=_unused(elements, key, [step.used for step in later]),
                    read=any(key in step.reads for step in later),
                )
            )
    return tuple(costs)


def _unused(
    elements: int, key: str, later: list[dict[str, list[list[int]]] | None]
) -> float | None:
    used = np.zeros(elements, np.bool_)
    for ranges in later:
        if ranges is None:
            return None
        for start, stop in ranges.get(key, ()):
            used[start:stop] = True
    return 1 - int(used.sum()) / elements if elements else 0.0


def cost_findings(costs: tuple[KeyCost, ...]) -> list[Finding]:
    """Findings for the keys that are read and carry more than later stages use.

    A key of which nothing is used is a warning: whoever reads it throws it away (Bamba in vLLM
    0.20.2 reads `residual` and overwrites it), and whether that is a fault the logits say. One
    that is not even read has a finding of its own.
    """
    findings = []
    for cost in costs:
        if not cost.read or not cost.unused:
            continue
        if cost.is_thrown_away:
            code, severity = "CON014", Severity.WARNING
            waste = "no later stage uses any of it"
            fix = "use what is read, or stop sending it"
        else:
            code, severity = "CON101", Severity.INFO
            waste = f"{cost.unused:.0%} of them are used by no later stage"
            fix = "send only what the stages after the boundary need"
        findings.append(
            Finding(
                code,
                f"'{cost.key}' carries {cost.bytes_per_token} bytes a token over {cost.boundary}; "
                + waste,
                fix,
                severity,
                boundary=cost.boundary,
                key=cost.key,
                evidence={"bytes_per_token": cost.bytes_per_token, "unused": cost.unused},
            )
        )
    return findings


def _width(dtype: str) -> int:
    """Bytes of an element; numpy knows neither bfloat16 nor the kinds of float8."""
    if dtype.startswith("float8"):
        return 1
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
