"""Runs every rule on the classes of one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from symtable import symtable

from harness.errors import BadInputError
from harness.lint import check_contract, check_layers, check_shared, check_state, check_weights
from harness.lint.engine import Engine, OutOfStepsError
from harness.lint.project import ClassRef, Module, Spot, build_module
from harness.lint.report import Finding
from harness.lint.rules import about_file, finding
from harness.lint.sources import concerns_pp, read_source
from harness.lint.stage import derive, parts_of
from harness.lint.values import Instance
from harness.lint.waivers import Waiver, waivers_in


@dataclass(frozen=True)
class JudgedFile:
    """The outcome of one file: findings of its classes, in whatever file they lie."""

    path: Path
    findings: tuple[Finding, ...] = ()
    concerns_pp: bool = False
    classes: int = 0
    """Classes that claim PP."""
    waivers: Sequence[Waiver] = ()


def judge_file(engine: Engine, path: Path) -> JudgedFile:
    """Judge the classes of a file that claim PP."""
    concerned = False
    try:
        source = read_source(path)
        concerned = concerns_pp(source)
        module = engine.project.known(path)
        if not concerned:
            # Nothing to judge, but what cannot be parsed is reported all the same. A table of
            # symbols takes half the time of a syntax tree in Python's objects.
            if module is None:
                symtable(source, path.name, "exec")
            return JudgedFile(path)
        if module is None:
            module = build_module(path, source)
    except BadInputError as error:
        return JudgedFile(path, (about_file("PP901", path, 1, str(error)),))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = (error.lineno if isinstance(error, SyntaxError) else None) or 1
        unreadable = about_file("PP901", path, line, f"cannot be parsed: {error}")
        return JudgedFile(path, (unreadable,), concerned)
    engine.project.add(module)
    findings, classes = _judge_module(engine, module)
    return JudgedFile(path, tuple(findings), True, classes, waivers_in(source))


def _judge_module(engine: Engine, module: Module) -> tuple[list[Finding], int]:
    project = engine.project
    cyclic = [cls for cls in module.classes.values() if project.lineage(cls).cyclic]
    others = [cls for cls in module.classes.values() if cls not in cyclic]
    claiming = [cls for cls in others if project.claims_pp(cls)]
    by_class = {cls: list(_judge_class(engine, cls)) for cls in claiming}
    findings = list(_read_elsewhere(engine, by_class))
    findings += (
        _of_class("PP901", cls, f"class {cls.name} inherits from itself") for cls in cyclic
    )
    return findings, len(claiming)


def _of_class(code: str, cls: ClassRef, text: str) -> Finding:
    return finding(code, Spot(cls.module, cls.node), text, symbol=cls.name)


def _read_elsewhere(engine: Engine, by_class: dict[ClassRef, list[Finding]]) -> Iterator[Finding]:
    """All findings, but no "sent and never read" where a class around does read it."""
    unread = {cls for cls, findings in by_class.items() if any(f.code == "PP104" for f in findings)}
    around: dict[ClassRef, list[set[tuple[str, str, int, str]]]] = {cls: [] for cls in unread}
    for cls, findings in by_class.items() if unread else ():
        engine.start()
        for part in parts_of(engine, Instance(cls)):
            if part.cls in unread and part.cls is not cls:
                around[part.cls].append({_place(f) for f in findings})
    for cls, findings in by_class.items():
        for each in findings:
            if each.code != "PP104" or all(_place(each) in places for places in around[cls]):
                yield each


def _place(each: Finding) -> tuple[str, str, int, str]:
    return each.code, each.path, each.line, each.message


def _judge_class(engine: Engine, cls: ClassRef) -> Iterator[Finding]:
    try:
        stage = derive(engine, cls)
        if stage.refuses:
            return  # vLLM ends in its message, whatever the class claims
        yield from check_contract.check(engine, stage)
        yield from check_layers.check(engine, stage)
        yield from check_weights.check(engine, stage)
        yield from check_state.check(stage)
        yield from check_shared.check(engine, stage)
    except (OutOfStepsError, RecursionError):
        yield _of_class("PP902", cls, f"{cls.name} is too deep or too long to follow")
        return
    if unread := stage.lineage.unread:
        bases = ", ".join(sorted(unread))
        yield _of_class("PP902", cls, f"bases of {cls.name} are not in this tree: {bases}")
    elif stage.forward is None:
        yield _of_class(
            "PP902", cls, f"{cls.name} claims SupportsPP, but no forward of it was found"
        )
