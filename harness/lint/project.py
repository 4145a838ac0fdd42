"""Modules, classes and how they refer to each other, across the files of one vLLM tree.

Nothing is imported: names are followed through `import` statements by reading the file they name,
on demand, once per process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, reduce
from pathlib import Path
from typing import Any

from harness.errors import BadInputError
from harness.lint.sources import MODEL_FOLDERS, read_source
from harness.lint.tree import FUNCTIONS, Function, dotted, flat

_MOST_HOPS = 12
# Only models take part in the contract; what they import from the rest of vLLM (layers, kernels,
# config) is left unread, which is most of the time that reading would take.
_FOLLOWED = ("vllm.model_executor.models", "vllm.models")
_NO_MODULES = (
    *("Processor", "ProcessingInfo", "DummyInputsBuilder", "DataParser", "Config"),
    *("TensorSchema", "TypedDict", "NamedTuple", "Enum"),
)
# What these classes define is known without reading them: vLLM's own protocols are stubs, and
# nn.Module and the like know nothing of PP.
_HARMLESS = frozenset(
    {"Module", "Protocol", "ABC", "object", "Generic", "CustomOp", "PluggableLayer"}
)
_HARMLESS_PROTOCOLS = ("Supports", "HasInner", "IsHybrid")
_RANK = ("_rank", "pp_group", "PPMissingLayer", "make_layers")


@dataclass(frozen=True)
class ImportedName:
    """`from <module> import <name>`; `name` is empty for a plain `import`."""

    module: str
    level: int
    name: str


@dataclass(eq=False)
class Module:
    """One parsed file."""

    path: Path
    tree: ast.Module
    lines: list[str]
    """As nodes count them."""
    classes: dict[str, ClassRef] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    imports: dict[str, ImportedName] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    memo: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    """Results that depend on this file alone, kept for its many heirs."""


@dataclass(eq=False)
class ClassRef:
    """A class in a module; there is one object for each class."""

    module: Module
    node: ast.ClassDef

    @property
    def name(self) -> str:
        """The class's own name."""
        return self.node.name

    @cached_property
    def asks_for_rank(self) -> bool:
        """Does the class's own source ask for the rank, or leave modules out on some?"""
        own = "\n".join(self.module.lines[self.node.lineno - 1 : self.node.end_lineno])
        return any(word in own for word in _RANK)

    @cached_property
    def methods(self) -> dict[str, Function]:
        """Methods that the class itself defines; the last definition wins, stubs are left out."""
        return {
            statement.name: statement
            for statement in flat(self.node.body)
            if isinstance(statement, FUNCTIONS) and not is_stub(statement)
        }

    @cached_property
    def attributes(self) -> dict[str, ast.expr]:
        """Values assigned in the class body."""
        return dict(_assignments(flat(self.node.body)))


@dataclass(frozen=True)
class Spot:
    """A place in a file: a node of its tree, or a line."""

    module: Module
    node: ast.AST | int

    @property
    def line(self) -> int:
        """The line, from 1."""
        return self.node if isinstance(self.node, int) else int(getattr(self.node, "lineno", 1))

    @property
    def column(self) -> int:
        """The column, from 1."""
        return 1 if isinstance(self.node, int) else int(getattr(self.node, "col_offset", 0)) + 1


@dataclass(frozen=True)
class Lineage:
    """The classes that attribute lookup goes through, and the bases that could not be found."""

    classes: tuple[ClassRef, ...]
    unknown: tuple[str, ...]
    cyclic: bool

    @cached_property
    def methods(self) -> dict[str, tuple[ClassRef, Function]]:
        """Every method that an object answers with, and the class that holds its code."""
        methods: dict[str, tuple[ClassRef, Function]] = {}
        for ref in self.classes:
            for name, node in ref.methods.items():
                methods.setdefault(name, (ref, node))
        return methods

    @cached_property
    def asks_for_rank(self) -> bool:
        """Does the source of any of the classes ask for the rank?"""
        return any(ref.asks_for_rank for ref in self.classes)

    @property
    def unread(self) -> set[str]:
        """Bases that could not be found, and may define something that PP needs."""
        return {
            base
            for base in self.unknown
            if (name := base.split(".")[-1]) not in _HARMLESS
            and not name.startswith(_HARMLESS_PROTOCOLS)
        }

    def attribute(self, name: str) -> tuple[ClassRef, ast.expr] | None:
        """What the body of a class assigns to a name, and the first class that does."""
        return next(((c, c.attributes[name]) for c in self.classes if name in c.attributes), None)


def is_stub(node: Function) -> bool:
    """A body of only a docstring, `...` or `pass`: a protocol's promise, not an implementation."""
    return all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in node.body
    )


def _assignments(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Plain assignments of one name, in order."""
    for statement in body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value
        elif (
            isinstance(statement, ast.AnnAssign)
            and statement.value is not None
            and isinstance(statement.target, ast.Name)
        ):
            yield statement.target.id, statement.value


def _is_no_module(node: ast.ClassDef) -> bool:
    """Input processors, configs and the like: nothing that is ever a part of a model."""
    return any(_class_name(base).endswith(_NO_MODULES) for base in node.bases)


def _class_name(base: ast.expr) -> str:
    return dotted(base.value if isinstance(base, ast.Subscript) else base)


def build_module(path: Path, source: str) -> Module:
    """Parse a file and index its top level.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse` does.
    """
    module = Module(path, ast.parse(source, filename=str(path)), source.split("\n"))
    body = flat(module.tree.body)
    module.constants.update(_assignments(body))
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            if _is_no_module(statement):
                # A third of a multi-modal file; without its body the tree takes less room.
                statement.body = []
            else:
                module.classes[statement.name] = ClassRef(module, statement)
        elif isinstance(statement, FUNCTIONS):
            module.functions[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                name = ImportedName(statement.module or "", statement.level, alias.name)
                # The first branch of a platform switch stands for all of them.
                module.imports.setdefault(alias.asname or alias.name, name)
    return module


@cache
def package_root(folder: Path) -> Path | None:
    """The folder that holds the `vllm` package of a folder, or None outside of such a tree."""
    for parent in (folder, *folder.parents):
        if parent.name == "vllm" and (
            (parent / "model_executor").is_dir() or (parent / "models").is_dir()
        ):
            return parent.parent
    return None


@cache
def _is_followed(base: Path) -> bool:
    """Is a relatively imported file a model file, or outside of vLLM altogether?"""
    root = package_root(base.parent)
    return root is None or base.relative_to(root / "vllm").as_posix().startswith(MODEL_FOLDERS)


class Project:
    """All modules seen so far, by path; reads further ones when a name leads there."""

    def __init__(self, root: Path | None = None, sources: Mapping[Path, str] | None = None) -> None:
        """`root` is where absolute imports of `vllm` are looked up for files outside a tree.

        `sources` are texts that stand for what the files of those paths hold.
        """
        self._root = root
        self._sources = sources or {}
        self._modules: dict[Path, Module | None] = {}
        self._lineages: dict[ClassRef, Lineage] = {}

    def add(self, module: Module) -> None:
        """Make a parsed module known."""
        self._modules[module.path] = module

    def known(self, path: Path) -> Module | None:
        """The module in a file, if an import has led there already."""
        return self._modules.get(path)

    def module(self, path: Path) -> Module | None:
        """The module in a file; None when it does not exist or cannot be parsed."""
        if path not in self._modules:
            try:
                source = self._sources[path] if path in self._sources else read_source(path)
                self._modules[path] = build_module(path, source)
            except (BadInputError, SyntaxError, ValueError, RecursionError, MemoryError):
                # A file reached by an import only; the linted files report their own faults.
                self._modules[path] = None
        return self._modules[path]

    def _imported_file(self, module: Module, target: ImportedName) -> list[Path]:
        folder = module.path.parent
        if target.level:
            base = reduce(lambda path, _: path.parent, range(target.level - 1), folder)
        else:
            root = package_root(folder) or self._root
            if root is None or not target.module.startswith(_FOLLOWED):
                return []
            base = root
        base = base.joinpath(*target.module.split(".")) if target.module else base
        if target.level and not _is_followed(base):
            return []
        return [base.with_name(base.name + ".py"), base / "__init__.py"]

    def _imported_module(self, module: Module, target: ImportedName) -> Module | None:
        key = ("imported", target.level, target.module)
        if key not in module.memo:
            module.memo[key] = self._read_import(module, target)
        imported: Module | None = module.memo[key]
        return imported

    def _read_import(self, module: Module, target: ImportedName) -> Module | None:
        modules = map(self.module, self._imported_file(module, target))
        return next((imported for imported in modules if imported is not None), None)

    def _origin(self, module: Module, name: str) -> tuple[Module, str] | None:
        """The module that an imported name comes from, and its name there."""
        target = module.imports.get(name)
        origin = self._imported_module(module, target) if target is not None else None
        return (origin, target.name) if target is not None and origin is not None else None

    def find_class(self, module: Module, name: str) -> ClassRef | None:
        """The class that a (dotted) name means in a module, through re-exports."""
        origin = self._defined(module, name)
        return origin[0].classes.get(origin[1]) if origin is not None else None

    def find_function(self, module: Module, name: str) -> tuple[Module, Function] | None:
        """The function that a name means in a module, through re-exports, and its module."""
        origin, defined = self._defined(module, name) or (module, "")
        return (origin, origin.functions[defined]) if defined in origin.functions else None

    def _defined(self, module: Module, name: str, hops: int = 0) -> tuple[Module, str] | None:
        """The module that defines what a (dotted) name means, and its name there."""
        if hops > _MOST_HOPS:
            return None
        head, _, rest = name.partition(".")
        alias = module.constants.get(name)
        if rest:
            inner = self._submodule(module, head)
            return self._defined(inner, rest, hops + 1) if inner is not None else None
        if name in module.classes or name in module.functions:
            return module, name
        if isinstance(alias, ast.Name) and alias.id != name:
            return self._defined(module, alias.id, hops + 1)
        origin = self._origin(module, name)
        return self._defined(*origin, hops + 1) if origin is not None else None

    def _submodule(self, module: Module, name: str) -> Module | None:
        target = module.imports.get(name)
        if target is None:
            return None
        path = f"{target.module}.{target.name}" if target.module else target.name
        return self._imported_module(module, ImportedName(path, target.level, ""))

    def lineage(self, cls: ClassRef) -> Lineage:
        """The class and its bases, in the order in which attributes are looked up.

        The order is depth first with duplicates kept at their last place, which equals Python's
        own for the shapes that model files use.
        """
        if cls not in self._lineages:
            self._lineages[cls] = self._lineage(cls)
        return self._lineages[cls]

    def _lineage(self, ref: ClassRef, below: tuple[ClassRef, ...] = ()) -> Lineage:
        if ref in below:
            return Lineage((), (), cyclic=True)
        classes, unknown, cyclic = [ref], list[str](), False
        for base in ref.node.bases:
            name = _class_name(base)
            known = self._find_base(ref, name) if name else None
            if known is None:
                unknown.append(name or ast.unparse(base))
                continue
            above = self._lineage(known, (*below, ref))
            classes += above.classes
            unknown += above.unknown
            cyclic = cyclic or above.cyclic
        last_places = reversed(dict.fromkeys(reversed(classes)))
        return Lineage(tuple(last_places), tuple(unknown), cyclic)

    def _find_base(self, ref: ClassRef, name: str) -> ClassRef | None:
        # `class X(X)` extends the X that the file has imported, if it has.
        if name != ref.name or name not in ref.module.imports:
            return self.find_class(ref.module, name)
        origin = self._origin(ref.module, name)
        return self.find_class(*origin) if origin is not None else None

    def find_method(
        self, cls: ClassRef, name: str, after: ClassRef | None = None
    ) -> tuple[ClassRef, Function] | None:
        """The method that a class answers with; `after` starts behind a class, as super() does."""
        lineage = self.lineage(cls)
        if after is None:
            return lineage.methods.get(name)
        classes = lineage.classes
        behind = classes[classes.index(after) + 1 :] if after in classes else ()
        return next(((ref, ref.methods[name]) for ref in behind if name in ref.methods), None)

    def claims_pp(self, cls: ClassRef) -> bool:
        """Does the class promise pipeline parallelism, by SupportsPP or by `supports_pp = True`?"""
        lineage = self.lineage(cls)
        for ref in lineage.classes:
            if ref.name == "SupportsPP":
                return ref is not cls
            flag = ref.attributes.get("supports_pp")
            if isinstance(flag, ast.Constant):
                return flag.value is True
        return any(name.split(".")[-1] == "SupportsPP" for name in lineage.unknown)
