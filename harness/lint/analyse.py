"""Lints paths, or a change with what it touches."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from harness.errors import BadInputError
from harness.lint.engine import Engine
from harness.lint.importers import importers_of
from harness.lint.interpreter import construct
from harness.lint.judge import JudgedFile, judge_file
from harness.lint.project import Project
from harness.lint.report import Finding, LintReport
from harness.lint.sources import concerns_pp, decoded, model_files
from harness.lint.waivers import apply_waivers, waivers_in

T = TypeVar("T")

_FEW_FILES = 12
"""Below this a second process costs more than it saves."""
_PARTS = 16


def lint_paths(
    paths: Iterable[Path | str], *, vllm: Path | str | None = None, jobs: int | None = None
) -> LintReport:
    """Lint model files, folders, or a whole vLLM tree.

    Base classes and inner models in other files are followed, and not reported on.

    Args:
        paths: Files and folders. Of a vLLM checkout or package only the model folders are taken.
        vllm: Where imports of `vllm` in files outside of a vLLM tree are looked up.
        jobs: Processes to use; by default as many as there are cores, at most 2: each parses on
            its own what its files inherit from, so that more cost memory and bring little.

    Raises:
        BadInputError: A path is missing, or a folder holds no Python file.
    """
    files = model_files(Path(path) for path in paths)
    judged = _judge(lambda: files, _import_root(vllm), jobs)
    shown = {str(path.absolute()) for path in files}
    findings = [f for file in judged for f in file.findings if f.path in shown]
    return _report(judged, findings, [], {path.absolute(): path for path in files})


def lint_change(
    root: Path | str,
    changed: Iterable[Path | str],
    *,
    before: Mapping[Path, str] | None = None,
    vllm: Path | str | None = None,
    jobs: int | None = None,
) -> LintReport:
    """Lint changed model files of a vLLM tree with what they touch.

    The change's own findings are those of the classes in the changed files, wherever they lie (a
    changed wrapper is judged with its inner models), and those that lie in a changed file,
    whatever class they are of (a changed encoder is judged in each wrapper that imports it). Other
    findings of the importers are not the change's own, unless it brought them (see `before`).

    Args:
        root: A vLLM checkout or package, or a folder of model files.
        changed: Changed files, absolute or relative to `root`; those that are gone, or lie
            outside of the model folders, are left out.
        before: The text of changed files before the change, by path: an importer's finding that
            was not there then is the change's own.
        vllm: As for `lint_paths`.
        jobs: As for `lint_paths`.

    Raises:
        BadInputError: `root` is missing, or holds no Python file.
    """
    base = Path(root)
    names = {path.absolute(): path for path in model_files([base])}
    asked = dict.fromkeys(_inside(base, Path(path)) for path in changed)
    own = [path for path in asked if path in names]
    if not own:
        return LintReport()
    import_root = _import_root(vllm)
    judged = _judge(lambda: _touched(own, names), import_root, jobs, first=own)
    with_others = [
        file.path for file in judged if any(_is_other(f, file.path, own) for f in file.findings)
    ]
    known = _earlier(with_others, before, import_root) if before is not None else None
    findings: list[Finding] = []
    others: list[Finding] = []
    for file in judged:
        for each in file.findings:
            is_old = known is None or _identity(each) in known
            is_other = _is_other(each, file.path, own) and is_old
            (others if is_other else findings).append(each)
    return _report(judged, findings, others, names)


def _touched(changed: Sequence[Path], files: Iterable[Path]) -> list[Path]:
    """The importers of a change that speak of PP."""
    texts = {path: decoded(path) for path in files}
    return [path for path in importers_of(changed, texts) if concerns_pp(texts[path])]


def _is_other(each: Finding, judged: Path, own: Sequence[Path]) -> bool:
    """Is a finding of the file `judged` neither in a changed file nor of a class in one?"""
    return judged not in own and Path(each.path) not in own


def _inside(root: Path, path: Path) -> Path:
    """The path of a file as the tree's own files are named, also where links lead to it."""
    real, top = (root / path).resolve(), root.resolve()
    return root.absolute() / real.relative_to(top) if real.is_relative_to(top) else real


def _earlier(
    touched: Sequence[Path], before: Mapping[Path, str], root: Path | None
) -> set[tuple[str, ...]]:
    """Identify the findings that the importers had before the change."""
    project = Project(root, {path.absolute(): text for path, text in before.items()})
    engine = Engine(project, construct)
    return {_identity(f) for path in touched for f in judge_file(engine, path).findings}


def _identity(each: Finding) -> tuple[str, ...]:
    return each.code, each.path, each.symbol, each.message


def _report(
    judged: Sequence[JudgedFile],
    findings: Iterable[Finding],
    others: Iterable[Finding],
    names: Mapping[Path, Path],
) -> LintReport:
    """One report of all files, with paths as the user named them and waivers applied."""
    own = _unique(findings)
    rest = [f for f in _unique(others) if f not in own]
    waivers = {str(file.path): file.waivers for file in judged}
    for path in {f.path for f in own} - set(waivers):
        # Reached from a judged file; its unused waivers are none of this lint's business.
        waivers[path] = [w for w in waivers_in(decoded(Path(path))) if not w.fault]
    unjudged = set(waivers) - {str(file.path) for file in judged}
    own, waived = apply_waivers(own, waivers, unjudged)
    rest, _ = apply_waivers(rest, waivers, set(waivers))
    return LintReport(
        findings=_named(own, names),
        others=_named(rest, names),
        files=len(judged),
        analysed=sum(file.concerns_pp for file in judged),
        classes=sum(file.classes for file in judged),
        waived=waived,
    )


def _named(findings: Iterable[Finding], names: Mapping[Path, Path]) -> tuple[Finding, ...]:
    shown = (replace(f, path=str(names.get(Path(f.path), f.path))) for f in findings)
    return tuple(sorted(shown, key=lambda f: f.sort_key))


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    """One finding per code, place and message; an inherited fault is found by each heir."""
    seen: dict[tuple[str, str, int, int, str], Finding] = {}
    for each in findings:
        key = (each.code, each.path, each.line, each.column, each.message)
        if key not in seen or each.symbol < seen[key].symbol:
            seen[key] = each
    return list(seen.values())


def _import_root(vllm: Path | str | None) -> Path | None:
    if vllm is None:
        return None
    path = Path(vllm)
    for root in (path, path.parent):
        if (root / "vllm").is_dir():
            return root
    raise BadInputError(f"{path}: holds no vllm package")


# ---- processes


def _judge(
    find: Callable[[], Sequence[Path]],
    root: Path | None,
    jobs: int | None,
    first: Sequence[Path] = (),
) -> list[JudgedFile]:
    """Judge what others import `first`, then what is found meanwhile.

    That is done in two processes where it saves time.
    """
    # Syntax trees are millions of objects that stay: looking through them for cycles takes four
    # fifths of the time that parsing takes.
    was_on = gc.isenabled()
    gc.disable()
    try:
        engine = Engine(Project(root), construct)
        workers = jobs if jobs is not None else min(2, os.cpu_count() or 1)
        workers = workers if os.name == "posix" else 1
        found = _beside(find) if first and workers > 1 else find
        judged = [judge_file(engine, path.absolute()) for path in first]
        files = found()
        if len(files) < _FEW_FILES or workers < 2:
            return [*judged, *(judge_file(engine, path.absolute()) for path in files)]
        return [*judged, *_judge_in_parts(engine, files, workers)]
    finally:
        # What was made meanwhile counts as old, which is looked through seldom.
        gc.freeze()
        gc.unfreeze()
        if was_on:
            gc.enable()


def _judge_in_parts(engine: Engine, files: Sequence[Path], workers: int) -> list[JudgedFile]:
    """Judge files in processes that each take the next part when they are free.

    Neighbours import each other, and what one process has parsed the others parse again: so a part
    is a stretch of the list.
    """
    size = -(-len(files) // _PARTS)
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    left, end = os.pipe()
    os.write(end, bytes(range(len(parts))))
    os.close(end)

    def judge() -> dict[int, list[JudgedFile]]:
        taken = (number for (number,) in iter(lambda: os.read(left, 1), b""))
        return {n: [judge_file(engine, path.absolute()) for path in parts[n]] for n in taken}

    others = [_beside(judge) for _ in range(1, workers)]
    judged = judge()
    os.close(left)
    for other in others:
        judged |= other()
    return [file for number in range(len(parts)) for file in judged[number]]


def _beside(work: Callable[[], T]) -> Callable[[], T]:
    """Start work in another process; what is returned waits for its outcome."""
    # fork: the parent has few modules and no threads, and what it has parsed is shared.
    # multiprocessing would do it in as many lines, and costs as much as linting a file to import.
    receiver, sender = os.pipe()
    if not (process := os.fork()):
        status = 1
        try:
            with os.fdopen(sender, "wb") as answer:
                pickle.dump(work(), answer)
            status = 0
        finally:
            os._exit(status)
    os.close(sender)

    def outcome() -> T:
        with os.fdopen(receiver, "rb") as answer:
            result: T = pickle.load(answer)  # noqa: S301 - of our own process; EOFError: it was killed
        os.waitpid(process, 0)
        return result

    return outcome
