"""The names of vLLM that `harness/engine/` relies on, and their check against a release's source.

`harness/engine/hooks/surface.toml` is the one list. `check_surface` reads the files that it names,
of an installed package, an unpacked wheel or a checkout, and imports nothing: whether the hooks fit
a release is known before anything of it runs (`pp-harness pin check`). Standard library only.
"""

import ast
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from .. import engine

_TABLE = Path(engine.__file__).resolve().parent / "hooks" / "surface.toml"


class Need(StrEnum):
    """The runs that need a name."""

    ALL = "all runs"
    CPU = "ranks on a CPU"
    V1 = "the V1 model runner"
    V2 = "the V2 model runner"
    SHARED = "ranks that share a GPU"
    RAY = "ranks under Ray"
    RANDOM = "random weights"
    SELFTEST = "the self-test"


@dataclass(frozen=True)
class Names:
    """Names of one class, or of a module where `owner` is None, in the file `vllm/<file>`.

    Each of `names` is written `name`, or `name(a, b)` for a function whose first parameters after
    `self` must be called `a` and `b`, in this order; `one | other` asks for at least one of both.
    A class may inherit what it is asked for. `used_by` is below `harness/engine/`. A release may
    lack an `optional` file, and needs nothing of it then.
    """

    file: str
    owner: str | None
    used_by: str
    names: tuple[str, ...]
    need: Need = Need.ALL
    optional: bool = False


def load_surface() -> tuple[Names, ...]:
    """Read the table of names, `harness/engine/hooks/surface.toml`."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["names"]
    return tuple(
        Names(
            entry["file"],
            entry.get("owner"),
            entry["used_by"],
            tuple(entry["names"]),
            Need[entry.get("need", "ALL")],
            optional=entry.get("optional", False),
        )
        for entry in table
    )


@dataclass(frozen=True)
class Finding:
    """One name, and in words how a release lacks it; empty where it is there as the hooks need."""

    name: str
    used_by: str
    need: Need
    problem: str


def check_surface(root: Path, surface: Iterable[Names] | None = None) -> list[Finding]:
    """Look every name up in `root`, a folder with the package `vllm` in it."""
    source = _Source(root)
    return [
        _check(source, group, written)
        for group in (load_surface() if surface is None else surface)
        for written in (group.names or ("",))  # no name: the file itself
    ]


def _check(source: "_Source", group: Names, written: str) -> Finding:
    place = ".".join(filter(None, (group.owner, written)))
    name = f"vllm/{group.file}: {place}" if place else f"vllm/{group.file}"
    return Finding(name, group.used_by, group.need, _problem(source, group, written))


def _problem(source: "_Source", group: Names, written: str) -> str:
    try:
        scope = source.module(f"vllm/{group.file}")
    except SyntaxError as error:
        return f"missing: line {error.lineno} is no Python: {error.msg}"
    if scope is None:
        return "" if group.optional else f"missing: no file vllm/{group.file}"
    if group.owner is not None:
        owner = source.class_in(scope, group.owner)
        if owner is None:
            return _instead(group.owner, scope.names)
        scope = owner
    if not written:
        return ""
    alternatives = [_parsed(alternative) for alternative in written.split(" | ")]
    differs = ""
    for wanted, parameters in alternatives:
        if known := source.find(scope, wanted):
            actual = known.parameters
            if actual is None or actual[: len(parameters)] == parameters:
                return ""
            differs = f"signature differs: {wanted}({', '.join(actual)})"
    return differs or _instead(alternatives[0][0], source.all_names(scope))


def _parsed(written: str) -> tuple[str, tuple[str, ...]]:
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?", written)
    assert match is not None, written
    return match[1], tuple(re.findall(r"\w+", match[2] or ""))


def _instead(wanted: str, names: Iterable[str]) -> str:
    alike = difflib.get_close_matches(wanted, list(names))
    return f"missing: no {wanted}" + (f"; there is {', '.join(alike)}" if alike else "")


# ---- reading source --------------------------------------------------------------------------

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class _Binding:
    """One bound name: the statement that binds it and, of an import, the module and name there."""

    node: ast.stmt
    imported: tuple[str, str] | None = None

    @property
    def parameters(self) -> tuple[str, ...] | None:
        """The positional parameters of a function, without that of the instance."""
        if not isinstance(self.node, _FUNCTIONS):
            return None
        given = [each.arg for each in (*self.node.args.posonlyargs, *self.node.args.args)]
        return tuple(given[1:] if given[:1] in (["self"], ["cls"]) else given)


class _Scope:
    """The body of a module or of a class in the file `path`, looked through when it is asked."""

    def __init__(self, path: str, node: ast.Module | ast.ClassDef) -> None:
        self.path = path
        self._node = node

    @cached_property
    def names(self) -> dict[str, _Binding]:
        """The names that its statements bind, then those that methods of a class set on `self`."""
        bound: dict[str, _Binding] = {}
        statements = list(_statements(self._node.body))
        for node in statements:
            for name, binding in _bindings(self.path, node):
                bound.setdefault(name, binding)
        if isinstance(self._node, ast.ClassDef):
            methods = (each for each in statements if isinstance(each, _FUNCTIONS))
            for node in _statements(each for method in methods for each in method.body):
                for target in _targets(node):
                    match target:
                        case ast.Attribute(value=ast.Name(id="self"), attr=name):
                            bound.setdefault(name, _Binding(node))
        return bound

    @property
    def bases(self) -> list[str]:
        """The names of the classes that a class inherits from."""
        bases = getattr(self._node, "bases", ())  # a module has none
        return [base.id for base in bases if isinstance(base, ast.Name)]


class _Source:
    """The files of one release, each read when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, _Scope | None] = {}
        self._classes: dict[int, _Scope] = {}

    def module(self, path: str) -> _Scope | None:
        """Read a file below the root; None if it is not there."""
        if path not in self._modules:
            file = self._root / path
            self._modules[path] = (
                _Scope(path, ast.parse(file.read_bytes())) if file.is_file() else None
            )
        return self._modules[path]

    def class_in(self, module: _Scope, name: str) -> _Scope | None:
        """Find a class that a module defines or imports from vLLM."""
        place = self._defined(module, name)
        if place is None or not isinstance(place[1].node, ast.ClassDef):
            return None
        defined_in, node = place[0], place[1].node
        return self._classes.setdefault(id(node), _Scope(defined_in.path, node))

    def find(self, scope: _Scope, name: str) -> _Binding | None:
        """Find a name in a module, or in a class or one that it inherits from."""
        if place := self._defined(scope, name):
            return place[1]
        return next(filter(None, (self.find(base, name) for base in self._bases(scope))), None)

    def all_names(self, scope: _Scope) -> set[str]:
        """Collect the names of a scope and of those that it inherits from."""
        return set(scope.names).union(*map(self.all_names, self._bases(scope)))

    def _bases(self, scope: _Scope) -> Iterator[_Scope]:
        module = self.module(scope.path)
        for name in scope.bases:
            if module and (base := self.class_in(module, name)):
                yield base

    def _defined(self, scope: _Scope, name: str) -> tuple[_Scope, _Binding] | None:
        """Find where a name of a scope is defined, through imports from vLLM."""
        binding = scope.names.get(name)
        if binding is None:
            return None
        if binding.imported:
            module, name = binding.imported
            path = module.replace(".", "/")
            origin = self.module(f"{path}.py") or self.module(f"{path}/__init__.py")
            if origin and (place := self._defined(origin, name)):
                return place
        return scope, binding


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body, those inside other statements too, but of no new scope."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            yield from _statements(node.body)
            yield from _statements(getattr(node, "orelse", ()))
            yield from _statements(getattr(node, "finalbody", ()))
            for handler in getattr(node, "handlers", ()):
                yield from _statements(handler.body)


def _targets(node: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions that an assignment assigns to, those of a tuple one by one."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from target.elts if isinstance(target, ast.Tuple) else (target,)
    elif isinstance(node, ast.AnnAssign):
        yield node.target


def _bindings(path: str, node: ast.stmt) -> Iterator[tuple[str, _Binding]]:
    """Yield the names that one statement of the file `path` binds."""
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        yield node.name, _Binding(node)
    elif isinstance(node, ast.ImportFrom):
        module = _absolute(path, node)
        for alias in node.names:
            origin = (module, alias.name) if module.split(".")[0] == "vllm" else None
            yield alias.asname or alias.name, _Binding(node, origin)
    for target in _targets(node):
        if isinstance(target, ast.Name):
            yield target.id, _Binding(node)


def _absolute(path: str, node: ast.ImportFrom) -> str:
    """Name the module that a file imports from, which it may name relative to its own folder."""
    if not node.level:
        return node.module or ""
    package = path.split("/")[: -node.level]
    return ".".join([*package, *filter(None, [node.module])])
