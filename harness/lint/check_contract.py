"""Rules PP1xx and PP2xx: the keys that are declared, sent and read, and what is in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from harness.lint.conditions import place_of
from harness.lint.emit import at, finding
from harness.lint.project import Module
from harness.lint.report import Finding, Severity
from harness.lint.stage import Stage, View, lookup, owner_module
from harness.lint.trace import Read, Role
from harness.lint.tree import walk
from harness.lint.values import Entry, Null, Opaque, kinds, nullness

# The runner itself adds receive slots for auxiliary hidden states, where a model can send them.
_RUNNER_KEYS = ("aux_hidden_states_",)


def check(stage: Stage) -> Iterator[Finding]:
    """All contract findings of a class."""
    yield from _methods(stage)
    dead = list(_dead_reads(stage))
    yield from (about for _, about in dead)
    yield from _unused_reads(stage)
    yield from _values(stage)
    if stage.sends_itself:
        yield from _read_never_sent(stage)
        yield from _sent_keys(stage, {key for key, _ in dead})
        yield from _declared_keys(stage)


# ---- keys


def _sent(view: View, key: str) -> Entry | None:
    """The entry of a key that a rank sends is certain only if every payload has it."""
    entries = [lookup(payload.entries, key) for payload in view.sends]
    known = [entry for entry in entries if entry is not None]
    certain = len(known) == len(entries) and all(entry.certain for entry in known)
    return replace(known[0], certain=certain) if known else None


def _open_send(view: View) -> bool:
    return any(payload.open for payload in view.sends)


def _read(stage: Stage, key: str) -> Read | None:
    """A read of the key on a later rank, one that always happens if there is one."""
    reads = [read for view in stage.later for read in view.reads_of(key)]
    return next((read for read in reads if read.certain), reads[0] if reads else None)


def _read_never_sent(stage: Stage) -> Iterator[Finding]:
    first, middle = stage.senders
    keys = {read.key: read for view in stage.later for read in view.trace.reads}
    for key in sorted(keys):
        read = _read(stage, key)
        assert read is not None
        by_first, by_middle = _sent(first, key), _sent(middle, key)
        symbol = f"{stage.cls.name}.{key}"
        if by_first is None and by_middle is None:
            if not (_open_send(first) or _open_send(middle)):
                text = f'"{key}" is read here but no rank sends it'
                weight = Severity.WARNING if read.tolerant else None
                yield at("PP101", read.spot, text, symbol=symbol, severity=weight)
        elif by_middle is None and not _open_send(middle):
            last = stage.views[Role.LAST]
            if last.reads_of(key):
                text = f'"{key}" is read here and sent by the first rank, but not by a middle rank'
                yield at("PP107", read.spot, text, symbol=symbol)
        elif by_first is None and not _open_send(first) and read.certain:
            text = f'"{key}" is read here; middle ranks send it, but the first rank does not'
            yield at("PP101", read.spot, text, symbol=symbol)


def _sent_keys(stage: Stage, dead: set[str]) -> Iterator[Finding]:
    declared = stage.declared.payload
    module = owner_module(stage)
    # Where later ranks read nothing at all, PP307 says so once.
    some_read = any(view.trace.reads for view in stage.later)
    open_read = any(view.trace.open_read for view in stage.later)
    sent: dict[str, tuple[View, Entry]] = {}
    for view in stage.senders:
        for payload in view.sends:
            for key, entry in payload.entries.items():
                sent.setdefault(key, (view, entry))
    for key, (view, entry) in sent.items():
        symbol = f"{stage.cls.name}.{key}"
        place = _module_of_line(view, entry.line) or module
        if declared is not None and not declared.open and lookup(declared.entries, key) is None:
            if not key.startswith(_RUNNER_KEYS):
                text = f'"{key}" is sent but not declared'
                yield finding("PP102", place, entry.line, text, symbol=symbol)
        elif some_read and not open_read and key not in dead and _read(stage, key) is None:
            text = f'"{key}" is sent here but no later rank reads it'
            yield finding("PP104", place, entry.line, text, symbol=symbol)


def _declared_keys(stage: Stage) -> Iterator[Finding]:
    declared = stage.declared.payload
    if declared is None:
        return
    for key, slot in declared.entries.items():
        entries = [(view, _sent(view, key)) for view in stage.senders]
        symbol = f"{stage.cls.name}.{key}"
        if all(entry is None for _, entry in entries):
            if not any(_open_send(view) for view in stage.senders):
                text = f'"{key}" is declared but no rank sends it'
                place = declared.module or stage.cls.module
                yield finding("PP103", place, slot.line or declared.line, text, symbol=symbol)
            continue
        read = _read(stage, key)
        for view, entry in entries:
            if entry is None or entry.certain or not slot.certain or "*" in key:
                continue
            if read is not None and read.certain:
                text = f'"{key}" is declared and read on every path, but sent only on some'
                module = _module_of_line(view, entry.line) or owner_module(stage)
                yield finding("PP108", module, entry.line, text, symbol=symbol)
                break


def _module_of_line(view: View, line: int) -> Module | None:
    modules = (p.module for p in view.sends if line in {e.line for e in p.entries.values()})
    return next(filter(None, modules), None)


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
            dead = id(test) in guards and id(subscript) not in executed
            if not isinstance(key, str) or not dead:
                continue
            guard = guards[id(test)]
            text = (
                f'"{key}" is read only if `{guard}` was passed in, and later ranks do not get '
                f"`{guard}`: the read never happens where the tensor arrives"
            )
            symbol = f"{stage.cls.name}.{key}"
            yield key, finding("PP105", module, subscript, text, symbol=symbol)


def _guarded_reads(function: ast.AST, name: str) -> Iterator[tuple[ast.If, ast.Subscript]]:
    for test in walk(function):
        if not isinstance(test, ast.If):
            continue
        for statement in test.body:
            for part in walk(statement):
                if (
                    isinstance(part, ast.Subscript)
                    and isinstance(part.ctx, ast.Load)
                    and place_of(part.value) == name
                ):
                    yield test, part


def _unused_reads(stage: Stage) -> Iterator[Finding]:
    used = {tag for view in stage.later for tag in view.trace.used}
    seen: set[str] = set()
    for view in stage.later:
        for read in view.trace.reads:
            if read.key in seen or f"read:{read.key}" in used:
                continue
            seen.add(read.key)
            text = f'"{read.key}" is read here, but the value is never used'
            yield at("PP106", read.spot, text, symbol=f"{stage.cls.name}.{read.key}")


# ---- values


def _methods(stage: Stage) -> Iterator[Finding]:
    for view in stage.views.values():
        for use in view.trace.no_methods:
            text = f"IntermediateTensors has no method `{use.name}`"
            yield at("PP202", use.spot, text, symbol=f"{stage.cls.name}.{use.name}")


def _values(stage: Stage) -> Iterator[Finding]:
    reported: set[tuple[str, int]] = set()
    for view in stage.senders:
        for payload in view.sends:
            for key, entry in payload.entries.items():
                if (key, entry.line) in reported:
                    continue
                module = payload.module or owner_module(stage)
                symbol = f"{stage.cls.name}.{key}"
                null = nullness(entry.value)
                # Put in under a condition: likely the one under which there is a tensor.
                if null is Null.YES or (null is Null.MAYBE and entry.certain):
                    reported.add((key, entry.line))
                    weight = None if null is Null.YES else Severity.WARNING
                    verb = "is" if null is Null.YES else "can be"
                    text = f'"{key}" {verb} None when the {view.role} rank sends'
                    yield finding("PP201", module, entry.line, text, symbol=symbol, severity=weight)
                yield from _layout(stage, key, entry, module, symbol)


def _layout(stage: Stage, key: str, entry: Entry, module: Module, symbol: str) -> Iterator[Finding]:
    declared = stage.declared.payload
    slot = lookup(declared.entries, key) if declared is not None else None
    if slot is None or not isinstance(slot.value, Opaque) or not isinstance(entry.value, Opaque):
        return
    other = kinds(entry.value, "dtype:") - kinds(slot.value, "dtype:")
    if other and "made" in slot.value.tags:
        declared_as = " or ".join(sorted(kinds(slot.value, "dtype:"))) or "the model's dtype"
        text = f'"{key}" is sent as {" or ".join(sorted(other))} and declared as {declared_as}'
        yield finding("PP204", module, entry.line, text, symbol=symbol)
    for name in sorted(kinds(entry.value, "buffer:")):
        text = f'"{key}" is self.{name}, which is written in place'
        yield finding("PP205", module, entry.line, text, symbol=symbol)
