"""Import statements lead to what uses a file, without parsing any of the others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from harness.lint.project import package_root

# A search for a literal is several times faster than one for the beginning of a line.
_IMPORT = re.compile(
    r"from[ \t]+(\.+|(?=vllm\.(?:model_executor\.)?models\b))([\w.]*)[ \t]+import[ \t]+"
    r"(?=(\([^)]*\)|[^\n#]*))"
)
_NAME = re.compile(r"(\w+|\*)(?:[ \t]+as[ \t]+(\w+))?")
_OF_NAME = re.compile(r"\w")
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
    importers: dict[Path, list[tuple[Path, str]]] = {}
    for path, source in sources.items():
        for module, listed in _imported(path, source, modules, folders):
            importers.setdefault(modules[module], []).append((path, listed))
    reached = {path: {_EVERYTHING} for path in changed}
    users: dict[Path, None] = {}
    latest = list(changed)
    while latest:
        path = latest.pop()
        if _module(path).rpartition("/")[2] in _LIBRARIES:
            continue
        for importer, listed in importers.get(path, ()):
            known = reached.setdefault(importer, set())
            names = _names(listed).items()
            here = {name for name, there in names if _is_reached(there, reached[path])}
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
        # The names as text first: that is many times faster, and most statements have none.
        using = {s for s in rest for name in latest if name in s and _mentions(s, name)}
        rest = [each for each in rest if each not in using]
        latest = {name for each in using for name in _defined(each)} - found - names
        found |= latest
    return found


def _mentions(statement: str, name: str) -> bool:
    """Is the name in a statement, and not only as a part of longer ones?"""
    # A pattern for each name would take longer to compile than all of the search.
    end = 0
    while (start := statement.find(name, end)) >= 0:
        end = start + len(name)
        if not _OF_NAME.search(statement[max(start - 1, 0) : start] + statement[end : end + 1]):
            return True
    return False


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
    return str(path).removesuffix(".py").removesuffix("/__init__")


def _imported(
    path: Path, source: str, modules: Mapping[str, Path], folders: set[str]
) -> Iterator[tuple[str, str]]:
    """The modules that the import statements of a file can mean, and what is imported of each.

    That is the text of the statement; a module that is itself imported has every name.
    """
    folder = str(path.parent)
    for dots, module, listed in _imports(source):
        base = folder.rsplit("/", len(dots) - 1)[0] if dots else package_root(Path(folder))
        if base is None:
            continue
        target = f"{base}/{module.replace('.', '/')}" if module else str(base)
        if target in modules:
            yield target, listed
        for alias, name in _names(listed).items() if target in folders else ():
            if f"{target}/{name}" in modules:
                yield f"{target}/{name}", f"{_EVERYTHING} as {alias}"


def _imports(source: str) -> Iterator[tuple[str, str, str]]:
    """The dots, the module and the names of each import statement."""
    for each in _IMPORT.finditer(source):
        before = source[source.rfind("\n", 0, each.start()) + 1 : each.start()]
        if not before.strip(" \t"):
            yield each[1], each[2], each[3]


def _names(listed: str) -> dict[str, str]:
    """The names that an import statement gives a file, with what each is in the other one."""
    return {alias or name: name for name, alias in _NAME.findall(_COMMENT.sub("", listed))}
