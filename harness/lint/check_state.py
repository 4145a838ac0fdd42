"""Rules PP6xx: state that has to cross a boundary and is not in IntermediateTensors."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.lint.emit import at, finding
from harness.lint.report import Finding
from harness.lint.stage import Stage, asserts_start
from harness.lint.trace import Role
from harness.lint.tree import walk
from harness.lint.values import tags_of


def check(stage: Stage) -> Iterator[Finding]:
    """All findings about state outside of IntermediateTensors."""
    yield from _loop_state(stage)
    yield from _aux_states(stage)
    yield from _shared_caches(stage)
    yield from _first_rank_arguments(stage)
    for spot in () if _wants_raw_tokens(stage) else stage.views[Role.MIDDLE].trace.input_uses:
        text = "layers are given input_ids, which the V2 runner gives to the first rank only"
        yield at("PP604", spot, text, symbol=stage.cls.name)
    yield from _repeated_ends(stage)


def _repeated_ends(stage: Stage) -> Iterator[Finding]:
    """Each rank repeats an operation that belongs before the first layer or behind the last."""
    first, middle, last = (stage.views[role].trace for role in Role)
    for name, carried in middle.carried.items():
        for step, spot in middle.applied.items():
            if step.phase == "before" and step.tag in carried.initial and step in first.applied:
                text = f"`{name}` is transformed here on every rank, on top of what was received"
                yield at("PP605", spot, text, symbol=f"{stage.cls.name}.{name}")
    sent = frozenset[str]().union(*(tags_of(p) for p in stage.views[Role.MIDDLE].sends))
    for step, spot in middle.applied.items():
        if step.phase == "after" and step.tag in sent and step in last.applied:
            text = f"`{step.text}` is applied behind this rank's last layer, before every boundary"
            yield at("PP610", spot, text, symbol=f"{stage.cls.name}.{step.text}")


def _wants_raw_tokens(stage: Stage) -> bool:
    """Does the class ask the runner for input_ids on every rank?"""
    flags = [ref.attributes.get("requires_raw_input_tokens") for ref in stage.lineage]
    first = next((flag for flag in flags if flag is not None), None)
    return isinstance(first, ast.Constant) and first.value is True


def _first_rank_arguments(stage: Stage) -> Iterator[Finding]:
    first, middle = stage.views[Role.FIRST], stage.views[Role.MIDDLE]
    for use in middle.trace.none_uses:
        text = f"later ranks are not given `{use.owner}`: it is None here, and has no .{use.name}"
        yield at("PP606", use.spot, text, symbol=f"{stage.cls.name}.{use.owner}")
    known = {id(use.spot.node) for use in first.trace.unbound}
    for use in middle.trace.unbound:
        # What the first rank lacks too is something that the walk does not see.
        if id(use.spot.node) not in known:
            text = f"`{use.name}` is set on the first rank only"
            yield at("PP609", use.spot, text, symbol=f"{stage.cls.name}.{use.name}")
    for use in () if stage.is_drafter else middle.trace.embeddings:
        text = f"{use.owner} runs on later ranks too"
        yield at("PP608", use.spot, text, symbol=f"{stage.cls.name}.{use.name}")
    if not first.sends or any(payload.open for payload in first.sends):
        return
    entries = [entry for payload in first.sends for entry in payload.entries.values()]
    for name, spot in first.trace.loop_inputs.items():
        # What went through the layers holds it too, and is not what later layers ask for.
        sent = any(
            f"input:{name}" in tags_of(entry.value)
            and not (entry.certain and any(t.startswith("carry:") for t in tags_of(entry.value)))
            for entry in entries
        )
        if not sent and not asserts_start(spot.module):
            text = f"layers use `{name}`, which only the first rank is given and no key carries on"
            yield at("PP607", spot, text, symbol=f"{stage.cls.name}.{name}")


def _loop_state(stage: Stage) -> Iterator[Finding]:
    middle = stage.views[Role.MIDDLE]
    if not middle.sends or any(payload.open for payload in middle.sends):
        return
    sent = frozenset[str]().union(*(tags_of(payload) for payload in middle.sends))
    for name, carried in middle.trace.carried.items():
        received = any(tag.startswith("read:") for tag in carried.initial)
        if received or f"carry:{name}" in sent or "aux" in name:
            continue
        if not carried.by_layers and asserts_start(carried.spot.module):
            continue
        text = f"`{name}` goes from layer to layer, but starts fresh on every rank"
        yield at("PP601", carried.spot, text, symbol=f"{stage.cls.name}.{name}")


def _aux_states(stage: Stage) -> Iterator[Finding]:
    middle = stage.views[Role.MIDDLE]
    if not middle.sends:
        return
    keys = {key for payload in middle.sends for key in payload.entries}
    if any("aux" in key for key in keys) or any(payload.open for payload in middle.sends):
        return
    for module, function, _ in middle.trace.receivers:
        for part in walk(function):
            if isinstance(part, ast.For) and any(
                isinstance(p, ast.Name) and p.id.startswith("aux_hidden") for p in walk(part)
            ):
                text = "auxiliary hidden states collected here are not sent to the next rank"
                yield finding("PP603", module, part, text, symbol=stage.cls.name)


def _shared_caches(stage: Stage) -> Iterator[Finding]:
    """Layers that are built to use the KV cache of another layer."""
    module = stage.cls.module
    if "kv_sharing_target_layer_name" not in module.source:
        return
    for part in walk(module.tree):
        if isinstance(part, ast.keyword) and part.arg == "kv_sharing_target_layer_name":
            if isinstance(part.value, ast.Constant) and part.value.value is None:
                continue
            text = "a layer here can use the KV cache of an earlier layer"
            yield finding("PP602", module, part.value, text, symbol=stage.cls.name)
