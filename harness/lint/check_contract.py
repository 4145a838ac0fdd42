"""Rules PP1xx to PP3xx: the keys that are declared, sent and read, and who hands them on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from harness.lint.conditions import place_of
from harness.lint.engine import Engine
from harness.lint.project import Spot
from harness.lint.report import Finding
from harness.lint.stage import DECLARE, Stage, View, lookup
from harness.lint.trace import Read, Role
from harness.lint.tree import find, parameter_names
from harness.lint.values import Entry, Null, Opaque, kinds, nullness

# The runner itself adds receive slots for auxiliary hidden states, where a model can send them.
_RUNNER_KEYS = ("aux_hidden_states_",)


def check(engine: Engine, stage: Stage) -> Iterator[Finding]:
    """All contract findings of a class."""
    yield from _wrapper(engine, stage)
    dead = list(_dead_reads(stage))
    yield from (about for _, about in dead)
    yield from _unused_reads(stage)
    yield from _values(stage)
    if stage.sends_itself:
        yield from _read_never_sent(stage)
        yield from _sent_keys(stage, {key for key, _ in dead})
        yield from _declared_keys(stage)


def _about(
    stage: Stage, code: str, key: str, spot: Spot, text: str, *, mild: bool = False
) -> Finding:
    return stage.finding(code, spot, f'"{key}" {text}', key, mild=mild)


# ---- the class that claims PP


def _wrapper(engine: Engine, stage: Stage) -> Iterator[Finding]:
    cls, forward = stage.cls, stage.forward
    if forward is None or stage.is_drafter:
        return
    passed = "intermediate_tensors" in parameter_names(forward)
    # vLLM's own test: without the parameter (or **kwargs) it refuses PP for the model.
    if not passed and forward.args.kwarg is None:
        return
    # A class without a constructor is a base for others, which set the declaration up.
    if stage.undeclared and engine.project.find_method(cls, "__init__") is not None:
        text = f"{cls.name} claims SupportsPP, but {stage.undeclared} {DECLARE}"
        yield stage.finding("PP301", Spot(cls.module, cls.node), text)
    if passed:
        yield from _path(stage, forward)


def _path(stage: Stage, forward: ast.AST) -> Iterator[Finding]:
    cls = stage.cls
    later, senders = [v.trace for v in stage.later], [v.trace for v in stage.senders]
    dropped = [note for trace in later for note in trace.noted("PP303")]
    touched = [note for trace in senders for note in trace.noted("PP304")]
    for note in (*dropped, *touched):
        yield stage.finding(note.code, note.spot, note.text, note.subject)
    assert stage.forward_owner is not None
    spot = Spot(stage.forward_owner.module, forward)
    if not any(v.sends or v.passes_on for v in stage.senders):
        # A later rank that has no path to an end raises: the class refuses PP itself.
        refuses = nullness(stage.views[Role.MIDDLE].result) is Null.YES
        if not refuses and not touched and not any(trace.noted("PP202") for trace in senders):
            text = f"no path of {cls.name}.forward returns IntermediateTensors"
            yield stage.finding("PP305", spot, text)
    elif keeping := [view for view in stage.senders if view.keeps and not view.passes_on]:
        maybe = all(view.sends for view in keeping)
        verb = "can return" if maybe else "returns"
        text = (
            f"{cls.name}.forward {verb} a tensor on the {keeping[0].role} rank, which has to send"
        )
        yield stage.finding("PP305", spot, text, mild=maybe)
    elif stage.sends_itself and not dropped:
        silent = not any(trace.reads or trace.open_read for trace in later)
        if silent and any(trace.receivers for trace in later):
            text = f"{cls.name} sends IntermediateTensors, but no later rank reads what it gets"
            yield stage.finding("PP307", spot, text)


# ---- keys


def _sent(view: View, key: str) -> Entry | None:
    """The entry of a key that a rank sends is certain only if every payload has it."""
    entries = [lookup(payload.entries, key) for payload in view.sends]
    known = [entry for entry in entries if entry is not None]
    certain = len(known) == len(entries) and all(entry.certain for entry in known)
    return replace(known[0], certain=certain) if known else None


def _read(stage: Stage, key: str) -> Read | None:
    """A read of the key on a later rank, one that always happens if there is one."""
    reads = [read for view in stage.later for read in view.reads_of(key)]
    return next((read for read in reads if read.certain), reads[0] if reads else None)


def _read_never_sent(stage: Stage) -> Iterator[Finding]:
    first, middle = stage.senders
    for key in sorted({read.key for view in stage.later for read in view.trace.reads}):
        read = _read(stage, key)
        assert read is not None
        by_first, by_middle = _sent(first, key), _sent(middle, key)
        if by_first is None and by_middle is None:
            if not (first.is_open or middle.is_open):
                text = "is read here but no rank sends it"
                yield _about(stage, "PP101", key, read.spot, text, mild=read.tolerant)
        elif by_middle is None and not middle.is_open:
            if stage.views[Role.LAST].reads_of(key):
                text = "is read here and sent by the first rank, but not by a middle rank"
                yield _about(stage, "PP107", key, read.spot, text)
        elif by_first is None and not first.is_open and read.certain:
            text = "is read here; middle ranks send it, but the first rank does not"
            yield _about(stage, "PP101", key, read.spot, text)


def _sent_keys(stage: Stage, dead: set[str]) -> Iterator[Finding]:
    declared = stage.declared
    # Where later ranks read nothing at all, PP307 says so once.
    some_read = any(view.trace.reads for view in stage.later)
    open_read = any(view.trace.open_read for view in stage.later)
    sent: dict[str, Entry] = {}
    for payload in (payload for view in stage.senders for payload in view.sends):
        sent = {**payload.entries, **sent}
    for key, entry in sent.items():
        if declared is not None and not declared.open and lookup(declared.entries, key) is None:
            if not key.startswith(_RUNNER_KEYS):
                yield _about(stage, "PP102", key, entry.spot, "is sent but not declared")
        elif some_read and not open_read and key not in dead and _read(stage, key) is None:
            text = "is sent here but no later rank reads it"
            yield _about(stage, "PP104", key, entry.spot, text)


def _declared_keys(stage: Stage) -> Iterator[Finding]:
    for key, slot in stage.declared.entries.items() if stage.declared is not None else ():
        entries = [entry for view in stage.senders if (entry := _sent(view, key)) is not None]
        if not entries and not any(view.is_open for view in stage.senders):
            yield _about(stage, "PP103", key, slot.spot, "is declared but no rank sends it")
        read = _read(stage, key)
        unsure = [entry for entry in entries if not entry.certain]
        if unsure and slot.certain and "*" not in key and read is not None and read.certain:
            text = "is declared and read on every path, but sent only on some"
            yield _about(stage, "PP108", key, unsure[0].spot, text)


# ---- reads


def _dead_reads(stage: Stage) -> Iterator[tuple[str, Finding]]:
    """Reads that stand in the code and happen on no rank that receives."""
    first, second = (view.trace for view in stage.later)
    executed = first.executed_reads | second.executed_reads
    guards = first.dead_guards | second.dead_guards
    functions = {id(given[1]): given for given in (*first.receivers, *second.receivers)}
    for module, function, name in functions.values():
        for test, subscript in _guarded_reads(function, name):
            key = subscript.slice.value if isinstance(subscript.slice, ast.Constant) else None
            if isinstance(key, str) and id(test) in guards and id(subscript) not in executed:
                guard = guards[id(test)]
                text = (
                    f"is read only if `{guard}` was passed in, and later ranks do not get "
                    f"`{guard}`: the read never happens where the tensor arrives"
                )
                yield key, _about(stage, "PP105", key, Spot(module, subscript), text)


def _guarded_reads(function: ast.AST, name: str) -> Iterator[tuple[ast.If, ast.Subscript]]:
    for test in find(function, ast.If):
        for part in (part for statement in test.body for part in find(statement, ast.Subscript)):
            if isinstance(part.ctx, ast.Load) and place_of(part.value) == name:
                yield test, part


def _unused_reads(stage: Stage) -> Iterator[Finding]:
    used = {tag for view in stage.later for tag in view.trace.used}
    reads = {read.key: read for view in stage.later for read in reversed(view.trace.reads)}
    for key, read in reads.items():
        if f"read:{key}" not in used:
            yield _about(
                stage, "PP106", key, read.spot, "is read here, but the value is never used"
            )


# ---- values


def _values(stage: Stage) -> Iterator[Finding]:
    for view in stage.views.values():
        for note in view.trace.noted("PP202"):
            yield stage.finding("PP202", note.spot, note.text, note.subject)
    without: set[tuple[str, Spot]] = set()
    for view in stage.senders:
        for payload in view.sends:
            for key, entry in payload.entries.items():
                null = nullness(entry.value)
                # Put in under a condition: likely the one under which there is a tensor.
                maybe = null is Null.MAYBE and entry.certain
                if (null is Null.YES or maybe) and (key, entry.spot) not in without:
                    without.add((key, entry.spot))
                    text = f"{'can be' if maybe else 'is'} None when the {view.role} rank sends"
                    yield _about(stage, "PP201", key, entry.spot, text, mild=maybe)
                if (key, entry.spot) not in without:
                    yield from _layout(stage, key, entry)


def _layout(stage: Stage, key: str, entry: Entry) -> Iterator[Finding]:
    slot = lookup(stage.declared.entries, key) if stage.declared is not None else None
    if slot is None or not isinstance(slot.value, Opaque) or not isinstance(entry.value, Opaque):
        return
    other = kinds(entry.value, "dtype:") - kinds(slot.value, "dtype:")
    if other and "made" in slot.value.tags:
        declared_as = " or ".join(sorted(kinds(slot.value, "dtype:"))) or "the model's dtype"
        text = f"is sent as {' or '.join(sorted(other))} and declared as {declared_as}"
        yield _about(stage, "PP204", key, entry.spot, text)
    for name in sorted(kinds(entry.value, "buffer:")):
        text = f"is self.{name}, which is written in place"
        yield _about(stage, "PP205", key, entry.spot, text)
