"""The contract as a picture needs it: each stage, and each key at each boundary."""

from collections.abc import Mapping
from typing import Any

from ...capture.record import RankTrace
from .boundary_cost import KeyCost


def contract_figures(
    stages: Mapping[int, RankTrace], pp: int, costs: tuple[KeyCost, ...] = ()
) -> dict[str, Any]:
    """Figures of the report: `stages` (layers of each, first and last) and `boundaries`.

    A boundary ("0->1") has its keys by name, and the traced steps that both sides ran. Of a key,
    `sent`, `copied` and `read` count the traced steps in which the sender sent a tensor, the runner
    handed it to the receiver, and the receiver's forward asked for it; `none` says that None was
    packed in its place; `shape` is without the rows; `bytes_per_token` and `unused` are those of
    `KeyCost`. A stage that left no trace is missing from `stages`, and so are the boundaries beside
    it.
    """
    return {
        "stages": [
            {"stage": stage, "layers": [min(layers), max(layers)] if layers else None}
            for stage, layers in sorted((stage, trace.layers) for stage, trace in stages.items())
        ],
        "boundaries": [
            _boundary(stages[stage], stages[stage + 1], costs)
            for stage in range(pp - 1)
            if stage in stages and stage + 1 in stages
        ],
    }


def _boundary(sender: RankTrace, receiver: RankTrace, costs: tuple[KeyCost, ...]) -> dict[str, Any]:
    boundary = f"{sender.stage}->{receiver.stage}"
    declared = receiver.declared or {}
    packed = [step.sent or {} for step in sender.steps]
    packed += [dummy["keys"] for dummy in sender.dummies]
    keys = {key for values in packed for key in values} | set(declared)
    keys |= {key for step in receiver.steps for key in step.reads}
    cost = {key_cost.key: key_cost for key_cost in costs if key_cost.boundary == boundary}

    def flow(key: str) -> dict[str, Any]:
        values = [values[key] for values in packed if key in values]
        forms = (form for form in (*values, declared.get(key)) if form and "shape" in form)
        form = next(forms, None)
        return {
            "key": key,
            "declared": key in declared,
            "sent": sum((step.sent or {}).get(key) is not None for step in sender.steps),
            "copied": sum((step.copied or {}).get(key) is not None for step in receiver.steps),
            "read": sum(key in step.reads for step in receiver.steps),
            "none": any(value is None for value in values),
            "shape": tuple(form["shape"][1:]) if form else None,
            "dtype": form["dtype"] if form else None,
            "bytes_per_token": cost[key].bytes_per_token if key in cost else None,
            "unused": cost[key].unused if key in cost else None,
        }

    steps = min(len(sender.steps), len(receiver.steps))
    return {"boundary": boundary, "steps": steps, "keys": tuple(map(flow, sorted(keys)))}
