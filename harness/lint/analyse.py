"""Lints paths: finds the files, analyses each class in them, applies waivers."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.errors import BadInputError
from harness.lint import (
    check_contract,
    check_layers,
    check_shared,
    check_state,
    check_weights,
    check_wrapper,
    tree,
)
from harness.lint.catalogue import RULES
from harness.lint.emit import finding
from harness.lint.interpreter import Engine, OutOfStepsError, is_harmless
from harness.lint.parts import parts_of
from harness.lint.project import ClassRef, Module, Project, build_module
from harness.lint.report import Finding, LintReport, Severity
from harness.lint.sources import concerns_pp, model_files, read_source
from harness.lint.stage import derive
from harness.lint.values import Instance
from harness.lint.waivers import Waiver, apply, waivers_in

_FEW_FILES = 24
"""Below this a second process costs more than it saves."""


@dataclass(frozen=True)
class _Batch:
    """What one process found."""

    findings: tuple[Finding, ...]
    analysed: int
    classes: int
    waivers: dict[str, Sequence[Waiver]]


def lint_paths(
    paths: Iterable[Path | str], *, vllm: Path | str | None = None, jobs: int | None = None
) -> LintReport:
    """Lint model files, folders, or a whole vLLM tree.

    Args:
        paths: Files and folders. Of a vLLM checkout or package only the model folders are taken.
        vllm: Where imports of `vllm` in files outside of a vLLM tree are looked up.
        jobs: Processes to use; by default as many as there are cores, at most 2: each parses on
            its own what its files inherit from, so that more cost memory and bring little.

    Raises:
        BadInputError: A path is missing, or no file in the given folders concerns PP.
    """
    given = [Path(path) for path in paths]
    root = _import_root(Path(vllm)) if vllm is not None else None
    files = model_files(given)
    workers = jobs if jobs is not None else min(2, os.cpu_count() or 1)
    shown = {str(path.absolute()): str(path) for path in files}
    if len(files) < _FEW_FILES or workers < 2:
        batches = [_lint_batch(files, root)]
    else:
        batches = _in_processes(files, root, workers)
    analysed = sum(batch.analysed for batch in batches)
    # A base class outside of the named files is followed, and not reported on.
    found = _unique(
        replace(f, path=shown[f.path])
        for batch in batches
        for f in batch.findings
        if f.path in shown
    )
    if not analysed and not found and all(path.is_dir() for path in given):
        names = ", ".join(str(path) for path in given)
        raise BadInputError(f"{names}: no file in here concerns pipeline parallelism")
    waivers = {shown[path]: w for batch in batches for path, w in batch.waivers.items()}
    found, waived = apply(found, waivers)
    return LintReport(
        findings=tuple(sorted(found, key=lambda f: f.sort_key)),
        files=len(files),
        analysed=analysed,
        classes=sum(batch.classes for batch in batches),
        waived=waived,
    )


def _import_root(path: Path) -> Path:
    for root in (path, path.parent):
        if (root / "vllm").is_dir():
            return root
    raise BadInputError(f"{path}: holds no vllm package")


def _in_processes(files: Sequence[Path], root: Path | None, workers: int) -> list[_Batch]:
    # Imported here: together they cost as much as linting a file does.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    shares = _shares(files, workers)
    # fork: the parent has only small modules loaded and no threads, and spawn would import again.
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    with ProcessPoolExecutor(workers - 1, mp_context=context) as pool:
        others = [pool.submit(partial(_lint_batch, share, root)) for share in shares[1:]]
        return [_lint_batch(shares[0], root), *(other.result() for other in others)]


def _shares(files: Sequence[Path], count: int) -> list[list[Path]]:
    """Runs of neighbours with about as many bytes each: neighbours import each other."""
    sizes = [path.stat().st_size for path in files]
    share = sum(sizes) / count + 1
    shares: list[list[Path]] = [[] for _ in range(count)]
    passed = 0
    for path, size in zip(files, sizes, strict=True):
        shares[int(passed // share)].append(path)
        passed += size
    return shares


def _lint_batch(files: Sequence[Path], root: Path | None) -> _Batch:
    # Syntax trees are millions of objects that stay: looking through them for cycles takes four
    # fifths of the time that parsing takes.
    was_on = gc.isenabled()
    gc.disable()
    try:
        return _lint_files(files, root)
    finally:
        if was_on:
            gc.enable()


def _lint_files(files: Sequence[Path], root: Path | None) -> _Batch:
    engine = Engine(Project(root))
    findings: list[Finding] = []
    waivers: dict[str, Sequence[Waiver]] = {}
    analysed = classes = 0
    for path in (path.absolute() for path in files):
        try:
            source = read_source(path)
        except BadInputError as error:
            findings.append(_unreadable(path, 1, str(error)))
            continue
        judged = concerns_pp(source)
        analysed += judged
        try:
            if not judged:
                # Nothing to judge, but what cannot be parsed is said all the same. Compiling
                # takes half the time of a syntax tree in Python's objects.
                compile(source, path.name, "exec", dont_inherit=True)
                continue
            module = engine.project.known(path) or build_module(path, source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = error.lineno if isinstance(error, SyntaxError) else 1
            findings.append(_unreadable(path, line or 1, f"cannot be parsed: {error}"))
            continue
        waivers[str(path)] = waivers_in(source)
        found, claiming = _lint_module(engine, module)
        findings += found
        classes += claiming
        tree.forget()
    return _Batch(tuple(findings), analysed, classes, waivers)


def _lint_module(engine: Engine, module: Module) -> tuple[list[Finding], int]:
    """What is found in one file, and how many of its classes claim PP."""
    engine.project.add(module)
    project = engine.project
    cyclic = [cls for cls in module.refs.values() if project.lineage(cls).cyclic]
    claiming = [cls for cls in module.refs.values() if project.claims_pp(cls) and cls not in cyclic]
    results = [(cls, list(_lint_class(engine, cls))) for cls in claiming]
    found = list(_judged(engine, results))
    for cls in cyclic:
        text = f"class {cls.name} inherits from itself"
        found.append(finding("PP901", module, cls.node, text, symbol=cls.name))
    return found, len(claiming)


def _judged(engine: Engine, results: Sequence[tuple[ClassRef, list[Finding]]]) -> Iterator[Finding]:
    """Drop "sent but never read" of a class where the class around it is the one that reads."""
    around: dict[int, list[list[Finding]]] = {}
    for cls, found in results:
        for part in parts_of(engine, Instance(cls)):
            if part.cls.node is not cls.node:
                around.setdefault(id(part.cls.node), []).append(found)
    for cls, found in results:
        owners = around.get(id(cls.node), [])
        for one in found:
            said = [any(_same(one, other) for other in owner) for owner in owners]
            if one.code != "PP104" or all(said):
                yield one


def _same(one: Finding, other: Finding) -> bool:
    return (one.code, one.path, one.line, one.message) == (
        other.code,
        other.path,
        other.line,
        other.message,
    )


def _lint_class(engine: Engine, cls: ClassRef) -> Iterator[Finding]:
    lineage = engine.project.lineage(cls)
    try:
        stage = derive(engine, cls)
        yield from check_wrapper.check(engine, stage)
        yield from check_contract.check(stage)
        yield from check_layers.check(engine, stage)
        yield from check_weights.check(engine, stage)
        yield from check_state.check(stage)
        yield from check_shared.check(engine, stage)
    except (OutOfStepsError, RecursionError):
        text = f"{cls.name} is too deep or too long to follow"
        yield finding("PP902", cls.module, cls.node, text, symbol=cls.name)
        return
    unknown = [name for name in lineage.unknown if not is_harmless(name)]
    if unknown:
        text = f"bases of {cls.name} are not in this tree: {', '.join(sorted(set(unknown)))}"
        yield finding("PP902", cls.module, cls.node, text, symbol=cls.name)
    elif stage.forward is None:
        text = f"{cls.name} claims SupportsPP, but no forward of it was found"
        yield finding("PP902", cls.module, cls.node, text, symbol=cls.name)


def _unreadable(path: Path, line: int, why: str) -> Finding:
    rule = RULES["PP901"]
    return Finding(rule.code, Severity.ERROR, str(path), line, 1, why, rule.cure)


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    """One finding per code, place and message; an inherited fault is found by each heir."""
    seen: dict[tuple[str, str, int, int, str], Finding] = {}
    for found in findings:
        key = (found.code, found.path, found.line, found.column, found.message)
        if key not in seen or found.symbol < seen[key].symbol:
            seen[key] = found
    return list(seen.values())
