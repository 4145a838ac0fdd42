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
    modules = _Modules(root)
    return [
        _check(modules, group, written)
        for group in (load_surface() if surface is None else surface)
        for written in (group.names or ("",))  # no name: the file itself
    ]


def _check(modules: "_Modules", group: Names, written: str) -> Finding:
    place = ".".join(filter(None, (group.owner, written)))
    name = f"vllm/{group.file}: {place}" if place else f"vllm/{group.file}"
    return Finding(name, group.used_by, group.need, _problem(modules, group, written))


def _problem(modules: "_Modules", group: Names, written: str) -> str:
    try:
        return _lack(modules, group, written)
    except SyntaxError as error:
        where = "" if error.filename == f"vllm/{group.file}" else f"{error.filename}, "
        return f"missing: {where}line {error.lineno} is no Python: {error.msg}"
    except RecursionError:
        return "missing: it is imported, or inherited, in a circle"


def _lack(modules: "_Modules", group: Names, written: str) -> str:
    scope = modules[f"vllm/{group.file}"]
    if scope is None:
        return "" if group.optional else f"missing: no file vllm/{group.file}"
    if group.owner is not None:
        owner = scope.class_named(group.owner)
        if owner is None:
            return _instead(group.owner, scope.names)
        scope = owner
    if not written:
        return ""
    alternatives = [_parsed(alternative) for alternative in written.split(" | ")]
    differs = ""
    for wanted, parameters in alternatives:
        if known := scope.find(wanted):
            actual = known.parameters
            if actual is None or actual[: len(parameters)] == parameters:
                return ""
            differs = f"signature differs: {wanted}({', '.join(actual)})"
    return differs or _instead(alternatives[0][0], scope.all_names())


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
    """One bound name: the statement that binds it.

    Of an import there are also the module and the name there, of a class its scope.
    """

    node: ast.AST
    imported: tuple[str, str] | None = None
    scope: "_Scope | None" = None

    @property
    def parameters(self) -> tuple[str, ...] | None:
        """The positional parameters of a function, without that of the instance."""
        if not isinstance(self.node, _FUNCTIONS):
            return None
        given = [each.arg for each in (*self.node.args.posonlyargs, *self.node.args.args)]
        return tuple(given[1:] if given[:1] in (["self"], ["cls"]) else given)


class _Modules(dict[str, "_Scope | None"]):
    """The files below a root, each read when it is first asked for; None if it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __missing__(self, path: str) -> "_Scope | None":
        file = self._root / path
        there = file.is_file()
        self[path] = _Scope(self, path, ast.parse(file.read_bytes(), path)) if there else None
        return self[path]


class _Scope:
    """The body of a module or of a class in the file `path`, looked through when it is asked."""

    def __init__(self, modules: _Modules, path: str, node: ast.Module | ast.ClassDef) -> None:
        self._modules = modules
        self._path = path
        self._node = node

    @cached_property
    def names(self) -> dict[str, _Binding]:
        """The names that its statements bind, then those that methods of a class set on `self`."""
        bound: dict[str, _Binding] = {}
        statements = list(_statements(self._node.body))
        for node in statements:
            for name, binding in self._bindings(node):
                bound.setdefault(name, binding)
        if isinstance(self._node, ast.ClassDef):
            methods = (each for each in statements if isinstance(each, _FUNCTIONS))
            for node in _statements(each for method in methods for each in method.body):
                for target in _targets(node):
                    match target:
                        case ast.Attribute(value=ast.Name(id="self"), attr=name):
                            bound.setdefault(name, _Binding(node))
        return bound

    def class_named(self, name: str) -> "_Scope | None":
        """Find a class that a module defines or imports from vLLM."""
        binding = self._defined(name)
        return binding.scope if binding else None

    def find(self, name: str) -> _Binding | None:
        """Find a name in a module, or in a class or one that it inherits from."""
        if binding := self._defined(name):
            return binding
        return next(filter(None, (base.find(name) for base in self._bases())), None)

    def all_names(self) -> set[str]:
        """Collect the names of a scope and of those that it inherits from."""
        return set(self.names).union(*(base.all_names() for base in self._bases()))

    def _bases(self) -> Iterator["_Scope"]:
        module = self._modules[self._path]
        for base in getattr(self._node, "bases", ()):  # a module has none
            if module and isinstance(base, ast.Name) and (found := module.class_named(base.id)):
                yield found

    def _defined(self, name: str) -> _Binding | None:
        """Find what defines a name of the scope, through imports from vLLM."""
        binding = self.names.get(name)
        if binding and binding.imported:
            module, name = binding.imported
            path = module.replace(".", "/")
            origin = self._modules[f"{path}.py"] or self._modules[f"{path}/__init__.py"]
            return (origin and origin._defined(name)) or binding
        return binding

    def _bindings(self, node: ast.AST) -> Iterator[tuple[str, _Binding]]:
        """Yield the names that one statement binds."""
        if isinstance(node, _FUNCTIONS):
            yield node.name, _Binding(node)
        elif isinstance(node, ast.ClassDef):
            yield node.name, _Binding(node, scope=_Scope(self._modules, self._path, node))
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(self._path, node)
            for alias in node.names:
                origin = (module, alias.name) if module.split(".")[0] == "vllm" else None
                yield alias.asname or alias.name, _Binding(node, origin)
        for target in _targets(node):
            if isinstance(target, ast.Name):
                yield target.id, _Binding(node)


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the statements of a body, those inside other statements too, but of no new scope."""
    for node in body:
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            for block in ("body", "orelse", "finalbody", "handlers"):
                yield from _statements(getattr(node, block, ()))


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that an assignment assigns to, those of a tuple one by one."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from target.elts if isinstance(target, ast.Tuple) else (target,)
    elif isinstance(node, ast.AnnAssign):
        yield node.target


def _absolute(path: str, node: ast.ImportFrom) -> str:
    """Name the module that a file imports from, which it may name relative to its own folder."""
    if not node.level:
        return node.module or ""
    package = path.split("/")[: -node.level]
    return ".".join([*package, *filter(None, [node.module])])
