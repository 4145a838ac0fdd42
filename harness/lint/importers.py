"""Import statements lead to what uses a file, without parsing any of the others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from harness.lint.project import package_root

# A line feed and not `^`: looking for a literal first is several times faster.
_IMPORT = re.compile(
    r"\n[ \t]*from[ \t]+(\.+|(?=vllm\.(?:model_executor\.)?models\b))([\w.]*)[ \t]+import[ \t]+"
    r"(\([^)]*\)|[^\n#]*)"
)
_NAME = re.compile(r"(\w+|\*)(?:[ \t]+as[ \t]+(\w+))?")
_COMMENT = re.compile(r"#[^\n]*")
# Where a statement of a module begins: a closing bracket or a line of a string begins none.
_STATEMENT = re.compile(
    r"\n(?=@|(?:class|def|async|if|else|try|except|for|with|from|import)\b|\w+ *(?:=|:[^\n]*=))"
)
_OWN = re.compile(r"\n(?:(?:async +)?def +|class +)?(\w+) *(?:\(|=|:)")
_IN_BRANCH = re.compile(r"\n[ \t]*(?:(?:async +)?def +|class +)?(\w+) *(?:\(|=|:)")
_EVERYTHING = "*"

_LIBRARIES = frozenset({"utils", "interfaces", "interfaces_base", "registry", "models"})
"""Files that every model imports, and no model is made of."""


def importers_of(changed: Sequence[Path], sources: Mapping[Path, str]) -> list[Path]:
    """The files among `sources` with a definition that a change can reach, in a stable order.

    That is a definition with a name in it that is imported from a changed file, or that another
    such definition has, in any number of steps.
    """
    modules = {_module(path): path for path in sources}
    folders = {str(path.parent) for path in sources}
    importers: dict[Path, list[tuple[Path, dict[str, str]]]] = {}
    for path, source in sources.items():
        for module, names in _imported(path, source, modules, folders):
            importers.setdefault(modules[module], []).append((path, names))
    reached = {path: {_EVERYTHING} for path in changed}
    users: dict[Path, None] = {}
    latest = list(changed)
    while latest:
        path = latest.pop()
        if _module(path).rpartition("/")[2] in _LIBRARIES:
            continue
        for importer, names in importers.get(path, ()):
            known = reached.setdefault(importer, set())
            here = {name for name, there in names.items() if _is_reached(there, reached[path])}
            if _EVERYTHING in known or here <= known:
                continue
            using = _users(sources[importer], known | here)
            if using:
                users[importer] = None
            known |= here | using
            latest.append(importer)
    return [path for path in sources if path in users and path not in set(changed)]


def _is_reached(name: str, reached: set[str]) -> bool:
    return name == _EVERYTHING or name in reached or _EVERYTHING in reached


def _users(source: str, names: set[str]) -> set[str]:
    """What a file defines with one of `names` in it, or with another such definition."""
    if _EVERYTHING in names:
        return {_EVERYTHING}
    rest, found, latest = _statements(source), set[str](), names
    while latest:
        mentions = re.compile(r"\b(?:" + "|".join(map(re.escape, latest)) + r")\b")
        # The names as text first: that is many times faster, and most statements have none.
        likely = (each for each in rest if any(name in each for name in latest))
        using = [each for each in likely if mentions.search(each)]
        rest = [each for each in rest if each not in using]
        latest = {name for each in using for name in _defined(each)} - found - names
        found |= latest
    return found


@lru_cache(maxsize=512)
def _statements(source: str) -> list[str]:
    """The statements of a module other than imports; a decorator stands with what it decorates."""
    statements: list[str] = []
    for text in _STATEMENT.split("\n" + source):
        if statements and statements[-1].startswith("@"):
            statements[-1] += "\n" + text
        elif not text.startswith(("from ", "import ")):
            statements.append(text)
    return statements


def _defined(statement: str) -> list[str]:
    """The names that a statement of a module defines: its own, or those of its branches."""
    is_branch = statement.startswith(("if ", "else:", "try:", "except", "for ", "with "))
    return (_IN_BRANCH if is_branch else _OWN).findall("\n" + statement)


def _module(path: Path) -> str:
    """The path by which an import finds the file: of a package its folder."""
    return str(path.parent if path.stem == "__init__" else path.with_suffix(""))


def _imported(
    path: Path, source: str, modules: Mapping[str, Path], folders: set[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The modules that the import statements of a file can mean.

    Of each the names that the file knows, with what they are there; a module has every name.
    """
    root, folder = _root_of(path.parent), str(path.parent)
    for dots, module, listed in _IMPORT.findall("\n" + source):
        if not dots and root is None:
            continue
        base = folder.rsplit("/", len(dots) - 1)[0] if dots else str(root)
        target = f"{base}/{module.replace('.', '/')}" if module else base
        if target not in modules and target not in folders:
            continue
        names = {alias or name: name for name, alias in _NAME.findall(_COMMENT.sub("", listed))}
        if target in modules:
            yield target, names
        for alias, name in names.items() if target in folders else ():
            if f"{target}/{name}" in modules:
                yield f"{target}/{name}", {alias: _EVERYTHING}


@lru_cache(maxsize=256)
def _root_of(folder: Path) -> Path | None:
    return package_root(folder / "__init__.py")
