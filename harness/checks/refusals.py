"""Verdicts on points that need no engine: a layer split that cannot load, too few devices."""

from ..capture.devices import DevicePool
from ..capture.order import devices_needed
from ..engine.settings import Device
from ..models.partition import PartitionPlan
from ..plan.cell import Cell
from ..plan.cost import expected_bytes
from ..plan.serving import Serving
from .finding import Finding, Outcome, Severity, Verdict, verdict_of


def judge_partition(plan: PartitionPlan) -> Verdict | None:
    """FAIL for a layer split that cannot be loaded, None if it can."""
    if plan.illegal_reason is None:
        return None
    split = ",".join(map(str, plan.layers_per_rank))
    finding = Finding(
        "PAR001",
        f"layer split {split} over {plan.pp} stages cannot be loaded: {plan.illegal_reason}",
        plan.note or "use another --pp-partition, or a smaller --pp",
        evidence={"layer_split": list(plan.layers_per_rank)},
    )
    return verdict_of(Outcome.FAIL, finding)


def judge_serving(serving: Serving, device: Device, release: str) -> Verdict | None:
    """NOT_APPLICABLE for a recipe that vLLM `release` refuses on a device, None if it does not."""
    reason = serving.recipe.refusal(device, release)
    if reason is None:
        return None
    finding = Finding(
        "ENG008",
        f"recipe {serving.label} cannot run on {device}, at PP=1 neither: {reason}",
        "run it on another kind of device (--pp-device) or release (docs/limits.md)",
        Severity.INFO,
    )
    return verdict_of(Outcome.NOT_APPLICABLE, finding)


def judge_devices(pool: DevicePool, cell: Cell) -> Verdict | None:
    """BLOCKED for a cell that this host has too few devices for, None if it has enough."""
    needed, available = devices_needed(cell, pool), len(pool.ids)
    if needed <= available:
        return None
    if pool.kind == "cpu" and cell.tp <= available:
        gib = 2**30
        usable = available * pool.memory / gib
        words = (
            f"about {expected_bytes(cell) / gib:.0f} GiB of memory, {usable:.0f} GiB can be used"
        )
    else:
        words = f"{needed} {pool.kind} devices, {available} can be used"
    size = f"PP={cell.pp} x TP={cell.tp}" if cell.tp > 1 else f"PP={cell.pp}"
    finding = Finding(
        "DEV001",
        f"{size} needs {words}",
        f"use a smaller --pp{' or --pp-tp' if cell.tp > 1 else ''}, or a host with more",
    )
    return verdict_of(Outcome.BLOCKED, finding)
