"""The room `harness/engine/`: the key of a capture covers all of our code that runs inside vLLM."""

import ast
from collections.abc import Iterable
from pathlib import Path

import harness
from harness import engine

PACKAGE = Path(harness.__file__).resolve().parent
ENGINE = Path(engine.__file__).resolve().parent
# Started by the controller, by vLLM's plugin loader, and by the registry of self-test changes.
ENTRIES = ("harness.engine.server", "harness.engine.plugin")


def path_of(module: str) -> Path | None:
    """Return the file of a module of ours."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports_of(module: str) -> set[str]:
    """Return the modules of ours that a module names in its imports, wherever they stand."""
    path = path_of(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    named = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - (node.level - 1)]
            base = ".".join(
                [*(parts if node.level else []), *([node.module] if node.module else [])]
            )
            named |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in named if name.split(".")[0] == "harness" and path_of(name)}


def closure(modules: Iterable[str]) -> set[str]:
    """Return modules with all of ours that they import, directly or not."""
    reached, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imports_of(module)
    return reached


def test_the_closure_of_what_runs_inside_is_one_folder():
    """Whatever the processes of an engine can import of ours stands in the key: promise kept."""
    inside = closure(ENTRIES)
    outside = [name for name in inside - {"harness"} if not path_of(name).is_relative_to(ENGINE)]
    assert sorted(outside) == []
    assert {"harness.engine.main", "harness.engine.hooks.tracer"} <= inside


def test_every_file_of_the_folder_is_in_the_closure_or_read_by_the_controller():
    """A file that nothing imports is dead, and makes captures stale for nothing."""
    waiting = list(ENTRIES)
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(ENGINE) and "_data" not in path.parts:
            relative = path.relative_to(PACKAGE.parent).with_suffix("")
            waiting += imports_of(".".join(relative.parts).removesuffix(".__init__"))
    files = {path_of(module) for module in closure(waiting)}
    assert sorted(set(ENGINE.rglob("*.py")) - files - {ENGINE / "__init__.py"}) == []
