"""Rules PP6xx: state that has to cross a boundary and is not in IntermediateTensors."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.lint.report import Finding
from harness.lint.stage import Stage, asserts_start
from harness.lint.trace import Note, Role
from harness.lint.values import NO_TAGS, Null, kinds, tags_of


def check(stage: Stage) -> Iterator[Finding]:
    """All findings about state outside of IntermediateTensors."""
    yield from _loop_state(stage)
    for note in _first_rank_arguments(stage):
        yield stage.finding(note.code, note.spot, note.text, note.subject)
    yield from _layer_inputs(stage)
    yield from _repeated_ends(stage)
    yield from _swapped_keys(stage)


def _repeated_ends(stage: Stage) -> Iterator[Finding]:
    """Each rank repeats an operation that belongs before the first layer or behind the last."""
    first, middle, last = (stage.views[role].trace for role in Role)
    for name, carried in middle.carried.items():
        for step, spot in middle.applied.items():
            if step.phase == "before" and step.tag in carried.initial and step in first.applied:
                text = f"`{name}` is transformed here on every rank, on top of what was received"
                yield stage.finding("PP605", spot, text, name)
    sent = stage.views[Role.MIDDLE].sent_tags
    for step, spot in middle.applied.items():
        if step.phase == "after" and step.tag in sent and step in last.applied:
            text = f"`{step.text}` is applied behind this rank's last layer, before every boundary"
            yield stage.finding("PP610", spot, text, step.text)


def _swapped_keys(stage: Stage) -> Iterator[Finding]:
    """What is sent of one state starts another one on the next rank."""
    middle = stage.views[Role.MIDDLE]
    sent = {
        key: (entry.spot, states)
        for payload in middle.sends
        for key, entry in payload.entries.items()
        if len(states := kinds(entry.value, "carry:")) == 1
    }
    for key, (spot, states) in sent.items():
        (name,) = states
        carried = middle.trace.carried.get(name)
        starts = {t for t in carried.initial if t.startswith("read:")} if carried else set()
        keys = [tag.removeprefix("read:") for tag in sorted(starts)]
        if keys and all(other in sent and sent[other][1] != states for other in keys):
            text = f'`{name}` is sent as "{key}", and starts from "{keys[0]}" on the next rank'
            yield stage.finding("PP612", spot, text, key)


def _first_rank_arguments(stage: Stage) -> Iterator[Note]:
    """The notes of a later rank about what only the first one has."""
    middle = stage.views[Role.MIDDLE].trace
    yield from middle.noted("PP606")
    # What the first rank lacks too is something that the walk does not see.
    known = {id(note.spot.node) for note in stage.views[Role.FIRST].trace.noted("PP609")}
    yield from (note for note in middle.noted("PP609") if id(note.spot.node) not in known)
    if not stage.is_drafter:
        yield from middle.noted("PP608")
    if not _wants_raw_tokens(stage):
        yield from middle.noted("PP604")


def _wants_raw_tokens(stage: Stage) -> bool:
    """Does the class ask the runner for input_ids on every rank?"""
    _, flag = stage.lineage.attribute("requires_raw_input_tokens") or (None, None)
    return isinstance(flag, ast.Constant) and flag.value is True


def _layer_inputs(stage: Stage) -> Iterator[Finding]:
    """Arguments of the first rank that its layers use, and no key carries on."""
    first = stage.views[Role.FIRST]
    if not first.sends or first.is_open:
        return
    entries = [entry for payload in first.sends for entry in payload.entries.values()]
    for name, spot in first.trace.loop_inputs.items():
        # What went through the layers holds it too, and is not what later layers ask for.
        sent = any(
            f"input:{name}" in tags_of(entry.value)
            and not (entry.certain and kinds(entry.value, "carry:"))
            for entry in entries
        )
        if not sent and not asserts_start(spot.module):
            text = f"layers use `{name}`, which only the first rank is given and no key carries on"
            yield stage.finding("PP607", spot, text, name)
    later = stage.views[Role.MIDDLE].trace.layer_arguments
    for name, (null, spot) in first.trace.layer_arguments.items():
        is_lost = later.get(name, (Null.UNKNOWN, spot))[0] is Null.YES and null is not Null.YES
        if is_lost and name not in first.trace.loop_inputs and not asserts_start(spot.module):
            text = f"layers are given `{name}`, which is None on later ranks"
            yield stage.finding("PP607", spot, text, name)


def _loop_state(stage: Stage) -> Iterator[Finding]:
    middle = stage.views[Role.MIDDLE]
    if not middle.sends or middle.is_open:
        return
    sent = {name for name in middle.trace.carried if f"carry:{name}" in middle.sent_tags}
    of_others = NO_TAGS.union(*(middle.trace.carried[name].initial for name in sent))
    for name, carried in middle.trace.carried.items():
        read = {tag for tag in carried.initial if tag.startswith("read:")}
        # What starts as a copy of another state is not received, but for layers that keep it.
        if read - of_others or name in sent or "aux" in name:
            continue
        if not carried.by_layers and asserts_start(carried.spot.module):
            continue
        text = f"`{name}` goes from layer to layer, but starts fresh on every rank"
        yield stage.finding("PP601", carried.spot, text, name)
